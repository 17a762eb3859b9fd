/* Between the files of this room: option.c puts a text into a setting, config.c finds the texts. */
#ifndef FARSWAP_COMMON_CONFIG_INTERNAL_H
#define FARSWAP_COMMON_CONFIG_INTERNAL_H

#include "common/config/config.h"

#define CONFIG_REASON_MAX 128

/*
 * Checks a text and stores its value in the settings; a list gets it added when `append`, else it begins anew. On failure
 * a negative errno (see config_load) and, in ret_reason, what is wrong with the text.
 */
int config_option_set(const struct config_option *option, void *settings, const char *text, bool append,
		      char ret_reason[CONFIG_REASON_MAX]) BASE_MUST_CHECK;

/* Programmer's mistakes in the table: asserts. */
void config_option_check(const struct config_option *option, size_t settings_bytes);

/* How the command line calls it: as the file does, with dashes for underscores. */
void config_option_arg_name(const struct config_option *option, char ret_name[CONFIG_NAME_MAX]);

/* Whether a string or a list has nothing in it. */
bool config_option_is_empty(const struct config_option *option, const void *settings);

#endif
