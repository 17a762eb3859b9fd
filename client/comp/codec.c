#include <errno.h>
#include <lz4.h>
#include <string.h>
#include <zstd.h>

#include "client/comp/internal.h"

/* LZ4 begins with steps of as many bytes. It would take up to 65537, with which nothing is found in a page. */
#define LZ4_ACCELERATION_LIMIT 64

static_assert(ZSTD_COMPRESSBOUND(FSW_PAGE_SIZE) <= COMP_PACKED_BYTES_MAX, "zstd has the room that it asks for");

static int lz4_init(struct comp_codec *codec)
{
	if (codec->level < 0 || codec->level > LZ4_ACCELERATION_LIMIT)
		return -EINVAL;
	return mem_region_open(&codec->lz4_state, (size_t)LZ4_sizeofState(), MEM_REGION_TOUCH) < 0 ? -ENOMEM : 0;
}

/*
 * zstd sizes its contexts when they are first used, by the level and the size of the source, and keeps them as long as
 * both stay the same. So one page is put through here, and none after it allocates. ZSTD_initStaticCCtx would promise
 * that, but it is not part of the library's stable interface. The contexts are of the heap, which mlockall touches.
 */
static int zstd_warm_up(struct comp_codec *codec)
{
	char page[FSW_PAGE_SIZE], packed[COMP_PACKED_BYTES_MAX];
	int len, ret;

	memset(page, 0, sizeof(page));
	len = comp_codec_pack(codec, page, packed);
	if (len < 0)
		return -ENOMEM;
	ret = comp_codec_unpack(codec, packed, (uint32_t)len, page);
	return ret < 0 ? -ENOMEM : 0;
}

static int zstd_init(struct comp_codec *codec)
{
	if (codec->level < ZSTD_minCLevel() || codec->level > ZSTD_maxCLevel())
		return -EINVAL;
	codec->zstd_packer = ZSTD_createCCtx();
	codec->zstd_unpacker = ZSTD_createDCtx();
	if (!codec->zstd_packer || !codec->zstd_unpacker)
		return -ENOMEM;
	if (ZSTD_isError(ZSTD_CCtx_setParameter(codec->zstd_packer, ZSTD_c_compressionLevel, codec->level)))
		return -EINVAL;
	return zstd_warm_up(codec);
}

int comp_codec_init(struct comp_codec *codec, enum comp_algorithm algorithm, int level)
{
	int ret = -EINVAL;

	*codec = (struct comp_codec){ .algorithm = algorithm, .level = level };
	switch (algorithm) {
	case COMP_LZ4:
		ret = lz4_init(codec);
		break;
	case COMP_ZSTD:
		ret = zstd_init(codec);
		break;
	}
	if (ret < 0)
		comp_codec_done(codec);
	return ret;
}

void comp_codec_done(struct comp_codec *codec)
{
	mem_region_close(&codec->lz4_state);
	ZSTD_freeCCtx(codec->zstd_packer);
	ZSTD_freeDCtx(codec->zstd_unpacker);
	*codec = (struct comp_codec){ 0 };
}

/* LZ4 stops as soon as it sees that the limit is not kept, and keeps it if it can be kept. */
static int lz4_pack(struct comp_codec *codec, const void *page, void *packed)
{
	int len = LZ4_compress_fast_extState(codec->lz4_state.base, page, packed, FSW_PAGE_SIZE, COMP_OBJECT_BYTES_MAX,
					     codec->level);

	return len > 0 ? len : -E2BIG;
}

/* zstd wants room in between that it does not need in the end: with less it would refuse pages that fit. */
static int zstd_pack(struct comp_codec *codec, const void *page, void *packed)
{
	size_t len = ZSTD_compress2(codec->zstd_packer, packed, COMP_PACKED_BYTES_MAX, page, FSW_PAGE_SIZE);

	return ZSTD_isError(len) || len > COMP_OBJECT_BYTES_MAX ? -E2BIG : (int)len;
}

int comp_codec_pack(struct comp_codec *codec, const void *page, void *packed)
{
	return codec->algorithm == COMP_LZ4 ? lz4_pack(codec, page, packed) : zstd_pack(codec, page, packed);
}

int comp_codec_unpack(struct comp_codec *codec, const void *packed, uint32_t len_bytes, void *page)
{
	size_t len;

	if (codec->algorithm == COMP_LZ4)
		return LZ4_decompress_safe(packed, page, (int)len_bytes, FSW_PAGE_SIZE) == FSW_PAGE_SIZE ? 0 : -EBADMSG;
	len = ZSTD_decompressDCtx(codec->zstd_unpacker, page, FSW_PAGE_SIZE, packed, len_bytes);
	return len == FSW_PAGE_SIZE ? 0 : -EBADMSG; /* an error is a number beyond any length */
}
