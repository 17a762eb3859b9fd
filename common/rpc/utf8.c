#include "common/rpc/internal.h"

/*
 * Length of the valid sequence at `s`, 1 to 4, or 0. The end of the text, a zero byte, is never a valid continuation,
 * so nothing is read beyond it.
 */
static unsigned utf8_sequence_length(const unsigned char *s)
{
	/* The second byte's range excludes long forms (E0, F0), surrogates (ED) and what is beyond Unicode (F4). */
	unsigned char low = 0x80, high = 0xbf;
	unsigned length;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		length = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		length = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		length = 4;
	else
		return 0;

	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;

	if (s[1] < low || s[1] > high)
		return 0;
	for (unsigned i = 2; i < length; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return length;
}

bool rpc_utf8_is_valid(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned length = utf8_sequence_length(s);

		if (length == 0)
			return false;
		s += length;
	}
	return true;
}

void rpc_utf8_clean(char *text)
{
	unsigned char *s = (unsigned char *)text;

	while (*s) {
		unsigned length = utf8_sequence_length(s);

		if (length == 0) {
			*s = '?';
			length = 1;
		}
		s += length;
	}
}
