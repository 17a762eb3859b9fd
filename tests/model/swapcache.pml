/*
 * The protocol of client/vswap by which folios come and go for one entry: holders that want its bytes, change them and leave,
 * reclaim that stores what is dirty and may take the folio out of the cache, and moves of what backs the entry.
 *
 * Steps are as fine as the code's atomic operations and what is done under the cluster's lock, which is one step unless a part
 * of it is seen without the lock. Memory is sequentially consistent. Names are the code's.
 *
 *   here                     there
 *   swapcache_prepare        swapcache.c: the lock, two passes
 *   folio_unlock             folio.c; swapcache_drop_unheld
 *   swap_put                 freeing.c: swap_put_run, swapcache_mark_unheld, swapcache_see_to_unheld
 *   store                    store.c, write.c: write_claim, write_place, write_publish_page
 *   move                     mover.c: move_commit
 *
 * What is left out, and why that is enough
 * - Epochs: an old slot keeps its bytes. When it may be used again is what move.pml is about.
 * - References of folios: each belongs to one holder for good, and comes and goes under the same number. So whoever finds one
 *   may get its lock when it stands for the entry no more, or again, as there.
 * - A folio is of one page, and I/O does not fail.
 *
 * Each BUG_ takes one step of the protocol away; tests/model/test_swapcache.py wants the verifier to find every one of them.
 */
#ifndef NR_HOLDERS
#define NR_HOLDERS 2
#endif
#ifndef NR_FAULTS /* of each holder, before it leaves */
#define NR_FAULTS 1
#endif
#ifndef NR_WRITES /* of all of them */
#define NR_WRITES 2
#endif
#ifndef NR_RECLAIMS
#define NR_RECLAIMS 2
#endif
#ifndef NR_MOVES
#define NR_MOVES 1
#endif
#ifndef KEPT /* 1: somebody holds the entry to the end, and then wants to read it */
#define KEPT 0
#endif

#define NOBODY 255
#define NO_SLOT 255
#define TORN 254 /* bytes that a write is changing */

/* The old slot, where a store goes that does not write in place, and where the move goes. */
#define SLOT_OLD 0
#define SLOT_STORED 1
#define SLOT_MOVED 2
#define NR_SLOTS 3

/* ---- the entry: its word, and the folio that stands for it ---- */

byte backing = SLOT_OLD; /* NO_SLOT: NONE */
byte generation;
byte count = NR_HOLDERS + KEPT;
bool cached, claimed;
byte in_cache = NOBODY; /* table_folios */

byte used = 1; /* slots, a bit each */
byte bytes[NR_SLOTS];

/* ---- folios ---- */

bool locked[NR_HOLDERS], dirty[NR_HOLDERS], uptodate[NR_HOLDERS], unheld[NR_HOLDERS];
byte data[NR_HOLDERS];

/* ---- what the properties need to know ---- */

byte newest;	       /* what was written last */
byte nr_workers;       /* who reads the entry in */
byte nr_writes = NR_WRITES;
byte nr_ended;
bool freed;

inline slot_free(slot)
{
	assert(used >> (slot) & 1);
	used = used & ~(1 << (slot))
}

/* Under the lock. */
inline swap_freeing_add()
{
	assert(!freed && count == 0 && in_cache == NOBODY && !claimed);
	slot_free(backing);
	backing = NO_SLOT;
	generation++;
	freed = true
}

/* ---- the lock of a folio ---- */

inline folio_lock(f)
{
	atomic { !locked[f] -> locked[f] = true }
}

/* Under the lock of the cluster, by who has the folio locked. */
inline swapcache_remove(f)
{
	assert(in_cache == f && cached);
	in_cache = NOBODY;
	cached = false;
	unheld[f] = false;
	if
	:: count == 0 -> swap_freeing_add()
	:: else -> assert(!dirty[f])
	fi;
	dirty[f] = false
}

inline folio_unlock(f)
{
	do
	:: if
	   :: unheld[f] ->
	      unheld[f] = false;
	      d_step {
		if
		:: in_cache == f && !dirty[f] && count == 0 -> swapcache_remove(f)
		:: else
		fi
	      }
	   :: else
	   fi;
	   locked[f] = false;
#ifdef BUG_UNLOCK_WITHOUT_SECOND_LOOK
	   break
#else
	   if
	   :: !unheld[f] -> break
	   :: else
	   fi;
	   atomic {
		if
		:: locked[f] -> break
		:: else -> locked[f] = true
		fi
	   }
#endif
	od
}

/* ---- holders ---- */

/* Who inserts his folio first does the read. The folio is locked. */
inline swapcache_prepare(f, ret_works)
{
#ifdef BUG_INSERT_WITHOUT_LOCK
	ret_works = !cached;
#endif
	d_step {
		assert(backing != NO_SLOT);
#ifndef BUG_INSERT_WITHOUT_LOCK
		ret_works = !cached;
#endif
		if
		:: ret_works ->
		   cached = true;
		   in_cache = f;
		   uptodate[f] = false;
		   dirty[f] = false;
		   nr_workers++;
		   assert(nr_workers == 1)
		:: else
		fi
	}
}

inline swap_read_folio(f)
{
	slot = backing;
	data[f] = bytes[slot];
	d_step {
		assert(data[f] == newest);
		uptodate[f] = true;
		nr_workers--
	}
}

inline swap_put()
{
	d_step {
		assert(count > 0);
		count--;
		f = NOBODY;
		if
#ifdef BUG_FREE_WHILE_CACHED
		:: count == 0 -> swap_freeing_add()
#else
		:: count == 0 && cached -> f = in_cache; unheld[f] = true
		:: count == 0 && !cached -> swap_freeing_add()
#endif
		:: else
		fi
	}
	if
	:: f != NOBODY && unheld[f] ->
	   atomic {
		if
		:: locked[f] -> works = false
		:: else -> locked[f] = true; works = true
		fi
	   }
	   if
	   :: works -> folio_unlock(f)
	   :: else
	   fi
	:: else
	fi
}

active [NR_HOLDERS] proctype holder()
{
	byte f, slot, faults = NR_FAULTS;
	bool works;

	do
	:: faults == 0 -> break
	:: faults > 0 ->
	   folio_lock(_pid);
	   f = _pid;
	   if
	   :: in_cache == _pid -> works = false /* his own, which he has locked */
	   :: else ->
	      swapcache_prepare(_pid, works);
	      if
	      :: works -> swap_read_folio(_pid)
	      :: else ->
		 folio_unlock(_pid);
		 f = in_cache;
		 if
		 :: f != NOBODY -> folio_lock(f)
		 :: else -> goto again
		 fi
	      fi
	   fi;
#ifndef BUG_LOCKED_WITHOUT_SECOND_LOOK
	   if
	   :: in_cache != f -> folio_unlock(f); goto again
	   :: else
	   fi;
#endif
	   d_step {
		assert(uptodate[f] && data[f] == newest);
		if
		:: nr_writes > 0 -> nr_writes--; newest++; data[f] = newest; dirty[f] = true
		:: else
		fi
	   }
	   folio_unlock(f);
	   faults--;
again:	   skip
	od;
	swap_put();
	nr_ended++
}

/* ---- reclaim ---- */

/* Claims the entry, writes in place or to a new slot, and publishes. */
inline store(f)
{
	claimed = true;
	if
	:: slot = backing
	:: atomic { !(used >> SLOT_STORED & 1) -> slot = SLOT_STORED; used = used | 1 << SLOT_STORED }
	fi;
	bytes[slot] = TORN;
	bytes[slot] = data[f];
	d_step {
		if
		:: slot != backing -> slot_free(backing); backing = slot
		:: else
		fi;
		generation++;
		claimed = false;
		dirty[f] = false
	}
}

active proctype reclaim()
{
	byte f, slot, reclaims = NR_RECLAIMS;

	do
	:: reclaims == 0 || freed -> break
	:: atomic { reclaims > 0 && in_cache != NOBODY -> f = in_cache; reclaims-- }
	   folio_lock(f);
	   if
	   :: in_cache == f && dirty[f] && count != 0 -> store(f)
	   :: else
	   fi;
	   atomic {
		if
		:: in_cache == f -> swapcache_remove(f)
		:: true /* it stays, clean or not */
		fi
	   }
	   folio_unlock(f)
	:: true -> break /* it may stop at any time */
	od;
	nr_ended++
}

/* ---- the mover ---- */

active proctype mover()
{
	byte from, seen, copy, moves = NR_MOVES;

	do
	:: moves == 0 || freed -> break
	:: moves > 0 ->
	   moves--;
	   atomic {
		if
		:: claimed || backing == NO_SLOT || (used >> SLOT_MOVED & 1) -> goto over
		:: else -> from = backing; seen = generation; used = used | 1 << SLOT_MOVED
		fi
	   }
	   copy = bytes[from];
	   bytes[SLOT_MOVED] = TORN;
	   bytes[SLOT_MOVED] = copy;
	   d_step {
		if
#ifdef BUG_SWING_WITHOUT_GENERATION
		:: backing == from ->
#else
		:: backing == from && generation == seen && !claimed ->
#endif
		   backing = SLOT_MOVED;
		   generation++;
		   slot_free(from)
		:: else -> slot_free(SLOT_MOVED)
		fi
	   }
over:	   skip
	od;
	nr_ended++
}

/*
 * Everybody has left. What is held has the newest bytes; what nobody holds is free, unless a dirty folio stands for it, of which
 * only its owner can say that it is not wanted.
 */
active proctype end()
{
	nr_ended == NR_HOLDERS + 2;
	assert(count == KEPT && !claimed && nr_workers == 0);
	assert(used == (freed -> 0 : 1 << backing));
#if KEPT
	assert(!freed);
	if
	:: in_cache == NOBODY -> assert(bytes[backing] == newest)
	:: else -> assert(data[in_cache] == newest)
	fi
#else
	assert((in_cache == NOBODY) == freed);
	assert(in_cache == NOBODY || dirty[in_cache])
#endif
}
