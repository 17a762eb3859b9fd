/*
 * swap_hog MIB ROUNDS [HOLD]: touches MIB of memory at random, page by page, with words that say which page and round
 * they are of, and reads all of it back in another order. Prints the number of wrong words; exits with 0 when there is
 * none. With HOLD it says "filled" after the first fill and goes on when its standard input ends.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/base/rand.h"

#define WORDS 512

static uint64_t word_of(size_t page, unsigned round, unsigned i)
{
	struct rand_state r = { .s = ((uint64_t)page << 20) ^ ((uint64_t)round << 52) ^ i };

	return rand_next(&r);
}

/* A permutation of 0 .. nr - 1, drawn anew for each pass. */
static void shuffle(uint32_t *order, size_t nr, struct rand_state *r)
{
	for (size_t i = nr - 1; i > 0; i--) {
		size_t j = (size_t)rand_below(r, i + 1);
		uint32_t t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
}

int main(int argc, char **argv)
{
	size_t nr_pages = argc > 2 ? strtoul(argv[1], NULL, 10) << 8 : 0;
	unsigned nr_rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	struct rand_state r = { .s = 1 };
	uint64_t bad = 0, *memory;
	uint32_t *order;

	if (nr_pages == 0 || nr_pages > UINT32_MAX) {
		fprintf(stderr, "usage: swap_hog MIB ROUNDS [HOLD]\n");
		return 2;
	}
	memory = mmap(NULL, nr_pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	order = malloc(nr_pages * sizeof(*order));
	if (memory == MAP_FAILED || !order)
		return 2;
	(void)madvise(memory, nr_pages << 12, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < nr_pages; i++)
		order[i] = (uint32_t)i;
	for (unsigned round = 0; round < nr_rounds; round++) {
		shuffle(order, nr_pages, &r);
		for (size_t i = 0; i < nr_pages; i++)
			for (unsigned w = 0; w < WORDS; w += 8)
				memory[(size_t)order[i] * WORDS + w] = word_of(order[i], round, w);
		if (argc > 3 && round == 0) {
			printf("filled\n");
			fflush(stdout);
			while (getchar() != EOF)
				;
		}
		shuffle(order, nr_pages, &r);
		for (size_t i = 0; i < nr_pages; i++)
			for (unsigned w = 0; w < WORDS; w += 8)
				bad += memory[(size_t)order[i] * WORDS + w] != word_of(order[i], round, w);
	}
	free(order);
	printf("%" PRIu64 " wrong words\n", bad);
	return bad != 0;
}
