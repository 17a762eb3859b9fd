#include "common/config/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* From the largest, which is the order in which the format functions try them. */
static const struct unit size_units[] = {
	{ "P", (uint64_t)1 << 50 }, { "T", (uint64_t)1 << 40 }, { "G", (uint64_t)1 << 30 },
	{ "M", (uint64_t)1 << 20 }, { "K", (uint64_t)1 << 10 },
};
static const struct unit duration_units[] = {
	{ "h", 3600000 },
	{ "min", 60000 },
	{ "s", 1000 },
	{ "ms", 1 },
};

/* Reads digits and moves *text behind them. 0; -EINVAL there are none; -ERANGE. */
static int take_digits(const char **text, uint64_t *ret_value)
{
	const char *at = *text;
	uint64_t value = 0;
	bool overflow = false;

	for (; *at >= '0' && *at <= '9'; at++) {
		overflow |= __builtin_mul_overflow(value, (uint64_t)10, &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value);
	}
	if (at == *text)
		return -EINVAL;
	*text = at;
	if (overflow)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

static int scale(uint64_t value, uint64_t factor, uint64_t *ret_value)
{
	uint64_t scaled;

	if (__builtin_mul_overflow(value, factor, &scaled))
		return -ERANGE;
	*ret_value = scaled;
	return 0;
}

int config_parse_u64(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;
	int ret = take_digits(&text, &value);

	if (*text != '\0')
		return -EINVAL;
	if (ret < 0)
		return ret;
	*ret_value = value;
	return 0;
}

int config_parse_size(const char *text, uint64_t *ret_bytes)
{
	uint64_t value = 0;
	int ret = take_digits(&text, &value);

	if (ret == -EINVAL)
		return ret;
	if (*text == '\0') {
		if (ret == 0)
			*ret_bytes = value;
		return ret;
	}
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(size_units); i++) {
		if (strncasecmp(text, size_units[i].name, 1) == 0 && (text[1] == '\0' || strcmp(text + 1, "iB") == 0))
			return ret < 0 ? ret : scale(value, size_units[i].factor, ret_bytes);
	}
	return -EINVAL;
}

int config_parse_duration(const char *text, uint64_t *ret_ms)
{
	uint64_t value = 0;
	int ret = take_digits(&text, &value);

	if (ret == -EINVAL)
		return ret;
	if (*text == '\0' && ret == 0 && value == 0) {
		*ret_ms = 0;
		return 0;
	}
	for (unsigned i = 0; i < BASE_ARRAY_SIZE(duration_units); i++) {
		if (strcmp(text, duration_units[i].name) == 0)
			return ret < 0 ? ret : scale(value, duration_units[i].factor, ret_ms);
	}
	return -EINVAL;
}

int config_parse_bool(const char *text, bool *ret_value)
{
	static const char *const words[][2] = {
		{ "no", "yes" }, { "false", "true" }, { "off", "on" }, { "0", "1" }
	};

	for (unsigned i = 0; i < BASE_ARRAY_SIZE(words); i++) {
		for (unsigned value = 0; value < 2; value++) {
			if (strcmp(text, words[i][value]) == 0) {
				*ret_value = value != 0;
				return 0;
			}
		}
	}
	return -EINVAL;
}

static void format_units(uint64_t value, const struct unit *units, size_t nr_units, char text[CONFIG_VALUE_MAX])
{
	for (size_t i = 0; i < nr_units && value != 0; i++) {
		if (value % units[i].factor == 0) {
			snprintf(text, CONFIG_VALUE_MAX, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
			return;
		}
	}
	snprintf(text, CONFIG_VALUE_MAX, "%" PRIu64, value);
}

void config_format_size(uint64_t bytes, char text[CONFIG_VALUE_MAX])
{
	format_units(bytes, size_units, BASE_ARRAY_SIZE(size_units), text);
}

void config_format_duration(uint64_t ms, char text[CONFIG_VALUE_MAX])
{
	format_units(ms, duration_units, BASE_ARRAY_SIZE(duration_units), text);
}
