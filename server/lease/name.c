#include "server/lease/name.h"

#include <string.h>

#include "common/base/err.h"

/*
 * Takes one code point off the text, by table 3-7 of the Unicode standard. How many bytes it has, or -EINVAL. The NUL
 * at the end stops it in the middle of a sequence, for it is no continuation byte.
 */
static int utf8_decode(const unsigned char *text, uint32_t *ret_code)
{
	static const struct {
		unsigned char mask, lead;
		int len_bytes;
		uint32_t min_code;
	} forms[] = {
		{ 0x80, 0x00, 1, 0x0 },
		{ 0xe0, 0xc0, 2, 0x80 },
		{ 0xf0, 0xe0, 3, 0x800 },
		{ 0xf8, 0xf0, 4, 0x10000 },
	};

	for (size_t i = 0; i < BASE_ARRAY_SIZE(forms); i++) {
		uint32_t code;

		if ((text[0] & forms[i].mask) != forms[i].lead)
			continue;
		code = text[0] & (unsigned char)~forms[i].mask;
		for (int j = 1; j < forms[i].len_bytes; j++) {
			if ((text[j] & 0xc0) != 0x80)
				return -EINVAL;
			code = code << 6 | (text[j] & 0x3fu);
		}
		if (code < forms[i].min_code || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
			return -EINVAL;
		*ret_code = code;
		return forms[i].len_bytes;
	}
	return -EINVAL;
}

static bool code_is_printable(uint32_t code)
{
	if (code < 0x20 || (code >= 0x7f && code <= 0x9f))
		return false; /* C0, DEL, C1 */
	if (code == 0x2028 || code == 0x2029)
		return false; /* line and paragraph separator */
	if (code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
	    (code >= 0x2066 && code <= 0x2069))
		return false; /* direction marks, embeddings, overrides, isolates */
	return (code & 0xfffe) != 0xfffe; /* not a character */
}

int lease_text_check(const char *text, size_t max_bytes)
{
	const unsigned char *at = (const unsigned char *)text;

	if (strnlen(text, max_bytes) == max_bytes)
		return -ENAMETOOLONG;
	while (*at) {
		uint32_t code;
		int len_bytes = utf8_decode(at, &code);

		if (len_bytes < 0 || !code_is_printable(code))
			return -EINVAL;
		at += len_bytes;
	}
	return 0;
}

int lease_name_check(const char *name)
{
	return *name ? lease_text_check(name, LEASE_NAME_MAX) : -EINVAL;
}
