#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/config/internal.h"

static const size_t type_bytes[] = {
	[CONFIG_STRING] = CONFIG_STRING_MAX,
	[CONFIG_U32] = sizeof(uint32_t),
	[CONFIG_U64] = sizeof(uint64_t),
	[CONFIG_SIZE] = sizeof(uint64_t),
	[CONFIG_DURATION] = sizeof(uint64_t),
	[CONFIG_BOOL] = sizeof(bool),
	[CONFIG_CHOICE] = sizeof(int),
	[CONFIG_LIST] = sizeof(struct config_list),
};

void config_option_check(const struct config_option *option, size_t settings_bytes)
{
	assert(option->section && option->name && option->help && strlen(option->name) < CONFIG_NAME_MAX);
	assert(option->size_bytes == type_bytes[option->type]);
	assert(option->offset + option->size_bytes <= settings_bytes);
	assert((option->type == CONFIG_CHOICE) == (option->choices != NULL));
	(void)option;
	(void)settings_bytes;
}

void config_option_arg_name(const struct config_option *option, char ret_name[CONFIG_NAME_MAX])
{
	size_t i;

	for (i = 0; option->name[i] != '\0' && i < CONFIG_NAME_MAX - 1; i++)
		ret_name[i] = option->name[i] == '_' ? '-' : option->name[i];
	ret_name[i] = '\0';
}

bool config_option_is_empty(const struct config_option *option, const void *settings)
{
	const char *at = (const char *)settings + option->offset;

	if (option->type == CONFIG_LIST)
		return ((const struct config_list *)(const void *)at)->nr == 0;
	return option->type == CONFIG_STRING && at[0] == '\0';
}

static int fail(int err, char *reason, const char *text)
{
	snprintf(reason, CONFIG_REASON_MAX, "%s", text);
	return err;
}

static void format_number(enum config_type type, uint64_t value, char text[CONFIG_VALUE_MAX])
{
	if (type == CONFIG_SIZE)
		config_format_size(value, text);
	else if (type == CONFIG_DURATION)
		config_format_duration(value, text);
	else
		snprintf(text, CONFIG_VALUE_MAX, "%" PRIu64, value);
}

static uint64_t number_max(const struct config_option *option)
{
	uint64_t most = option->type == CONFIG_U32 ? UINT32_MAX : UINT64_MAX;

	return option->max == 0 ? most : base_min_u64(option->max, most);
}

static int fail_range(const struct config_option *option, char *reason)
{
	char min[CONFIG_VALUE_MAX], max[CONFIG_VALUE_MAX];

	format_number(option->type, option->min, min);
	format_number(option->type, number_max(option), max);
	if (option->max == 0 && option->min > 0)
		snprintf(reason, CONFIG_REASON_MAX, "must be at least %s", min);
	else
		snprintf(reason, CONFIG_REASON_MAX, "must be %s to %s", min, max);
	return -ERANGE;
}

static int parse_number(const struct config_option *option, const char *text, uint64_t *ret_value, char *reason)
{
	int ret;

	switch (option->type) {
	case CONFIG_SIZE:
		ret = config_parse_size(text, ret_value);
		if (ret == -EINVAL)
			return fail(ret, reason, "not a size such as 512K, 64M or 4G");
		break;
	case CONFIG_DURATION:
		ret = config_parse_duration(text, ret_value);
		if (ret == -EINVAL)
			return fail(ret, reason, "not a time such as 500ms, 10s or 5min");
		break;
	default:
		ret = config_parse_u64(text, ret_value);
		if (ret == -EINVAL)
			return fail(ret, reason, "not a number");
	}
	if (ret < 0 || *ret_value < option->min || *ret_value > number_max(option))
		return fail_range(option, reason);
	if ((option->flags & CONFIG_POWER_OF_TWO) && !base_is_power_of_two(*ret_value))
		return fail(-EINVAL, reason, "must be a power of two");
	return 0;
}

static int set_choice(const struct config_option *option, int *at, const char *text, char *reason)
{
	size_t len;

	for (int i = 0; option->choices[i]; i++) {
		if (strcmp(option->choices[i], text) == 0) {
			*at = i;
			return 0;
		}
	}
	len = (size_t)snprintf(reason, CONFIG_REASON_MAX, "must be one of");
	for (int i = 0; option->choices[i] && len < CONFIG_REASON_MAX; i++)
		len += (size_t)snprintf(reason + len, CONFIG_REASON_MAX - len, "%s %s", i ? "," : "",
					option->choices[i]);
	return -EINVAL;
}

/* Adds one item, without the blanks round it. */
static int add_item(struct config_list *list, const char *text, size_t len, char *reason)
{
	while (len > 0 && (*text == ' ' || *text == '\t')) {
		text++;
		len--;
	}
	while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	if (len == 0)
		return fail(-EINVAL, reason, "an empty item");
	if (len >= CONFIG_STRING_MAX)
		return fail(-ERANGE, reason, "an item is too long");
	for (unsigned i = 0; i < list->nr; i++) {
		if (strlen(list->item[i]) == len && memcmp(list->item[i], text, len) == 0) {
			snprintf(reason, CONFIG_REASON_MAX, "%.*s is given twice", (int)base_min_u64(len, 64), text);
			return -EEXIST;
		}
	}
	if (list->nr == CONFIG_LIST_MAX)
		return fail(-ENOSPC, reason, "too many items");
	memcpy(list->item[list->nr], text, len);
	list->item[list->nr][len] = '\0';
	list->nr++;
	return 0;
}

static int set_list(struct config_list *list, const char *text, bool append, char *reason)
{
	int ret;

	if (!append)
		list->nr = 0;
	if (*text == '\0')
		return 0;
	for (;;) {
		size_t len = strcspn(text, ",");

		ret = add_item(list, text, len, reason);
		if (ret < 0)
			return ret;
		if (text[len] == '\0')
			return 0;
		text += len + 1;
	}
}

int config_option_set(const struct config_option *option, void *settings, const char *text, bool append,
		      char ret_reason[CONFIG_REASON_MAX])
{
	void *at = (char *)settings + option->offset;
	uint64_t value;
	int ret;

	switch (option->type) {
	case CONFIG_STRING:
		if (strlen(text) >= CONFIG_STRING_MAX)
			return fail(-ERANGE, ret_reason, "too long");
		strcpy(at, text);
		return 0;
	case CONFIG_BOOL:
		if (config_parse_bool(text, at) < 0)
			return fail(-EINVAL, ret_reason, "must be yes or no");
		return 0;
	case CONFIG_CHOICE:
		return set_choice(option, at, text, ret_reason);
	case CONFIG_LIST:
		return set_list(at, text, append, ret_reason);
	case CONFIG_U32:
	case CONFIG_U64:
	case CONFIG_SIZE:
	case CONFIG_DURATION:
		break;
	}
	ret = parse_number(option, text, &value, ret_reason);
	if (ret < 0)
		return ret;
	if (option->type == CONFIG_U32)
		*(uint32_t *)at = (uint32_t)value;
	else
		*(uint64_t *)at = value;
	return 0;
}
