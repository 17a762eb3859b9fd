/*
 * The protocol of client/vswap by which the slot behind an entry changes while the entry is read, written, discarded and
 * moved: processes for writers, a reader, a discarder, the drain with its mover, and the reaper.
 *
 * Steps are as fine as the code's atomic operations; what stands in atomic{} is one operation there, or is kept from being
 * seen half done by what its comment names. Memory is sequentially consistent. Names are the code's.
 *
 *   here                          there
 *   word[], word_next             word.h
 *   table_look, _wait, _publish   table.h, table.c
 *   epoch_enter, epoch_exit       epoch.h
 *   slot_alloc, slot_retire       slab.c
 *   writer                        write.c: write_claim, write_place, write_publish_page
 *   reader                        read.c: read_segment_step, read_mismatch
 *   discarder                     discard.c: discard_cluster
 *   drain, move                   drain.c: drain_look, drain_end_pass; mover.c
 *   reaper                        reap.c, epoch_advance, slab_free_retired
 *
 * What is left out, and why that is enough
 * - Requests and jobs are of one page; a drain has one job under way. Tags are NONE and REMOTE. No server is lost, no write
 *   fails; of reads NR_FAULTS bring wrong bytes.
 * - The bytes of a slot are one number, and torn while they are written: a read that is torn itself would be met by the
 *   same mismatch. Every write writes a number of its own, and the checksum is that number: two different pages with the
 *   same CRC32C, and a page that is written back to what it was while it is read, are not looked for.
 * - Generations are modulo 8. Each entry changes fewer times than that, which is asserted: that 13 bits never come round
 *   within one I/O is taken for granted, there as here.
 * - The number of the epoch is modulo 3, which is all that buckets and bitmaps see of it. An epoch_enter that is held up for
 *   a multiple of three steps passes the second look here and is turned away there; it stands in the right bucket.
 * - Clusters of slots: each cursor owns its cluster, so taking a slot is one step. The lowest free one is taken, the one
 *   that comes into use again soonest.
 * - Timers that look again are guards that wait until there is something to see. No process polls, so one that is never
 *   woken is an invalid end state.
 *
 * Each BUG_ takes one step of the protocol away; tests/model/test_move.py wants the verifier to find every one of them.
 */
#ifndef NR_ENTRIES
#define NR_ENTRIES 1
#endif
#ifndef NR_SLOTS /* of each server */
#define NR_SLOTS 2
#endif
#ifndef NR_WRITERS
#define NR_WRITERS 1
#endif
#ifndef NR_WRITES /* of each writer */
#define NR_WRITES 2
#endif
#ifndef NR_READS
#define NR_READS 1
#endif
#ifndef NR_DISCARDS
#define NR_DISCARDS 1
#endif
#ifndef NR_FAULTS
#define NR_FAULTS 0
#endif
/* MOVE_UNDRAINED: instead of a drain, one pass of moves off a server that is written to in place meanwhile. */

#define NO_SLOT 255
#define NO_PAGE 255
#define TORN 254  /* bytes that a write is changing */
#define WRONG 253 /* bytes that are nobody's */

/* ---- word.h: bits 0..3 the slot + 1, or 0 for NONE; bits 4..6 the generation; bit 7 claimed ---- */

#define WORD_CLAIMED 128
#define word_is_claimed(w) (((w) & WORD_CLAIMED) != 0)
#define word_has_slot(w) (((w) & 15) != 0)
#define word_slot(w) (((w) & 15) - 1)
#define word_next(w, payload) (((((w) >> 4) + 1) & 7) << 4 | (payload))
#define word_is_at(w, slot) (((w) & 15) == (slot) + 1)

/* Entry e begins in slot e of server 0, and holds the number 1 + e. */
#if NR_ENTRIES == 1
#define OF_EACH_ENTRY(a, b) { a }
#define USED_AT_FIRST 1
#else
#define OF_EACH_ENTRY(a, b) { a, b }
#define USED_AT_FIRST 3
#endif

byte word[NR_ENTRIES] = OF_EACH_ENTRY(1, 2);
byte checksum[NR_ENTRIES] = OF_EACH_ENTRY(1, 2);

/* ---- slab.h: server 0, which is to be drained, has the slots from 0, server 1 those from NR_SLOTS on ---- */

#define SLOTS_OF_0 ((1 << NR_SLOTS) - 1)
#define SLOTS_OF_1 (SLOTS_OF_0 << NR_SLOTS)
#define slots_of(server) ((server) == 0 -> SLOTS_OF_0 : SLOTS_OF_1)
#define has_room(server) ((used & slots_of(server)) != slots_of(server))
#define live_slots (used & ~(retired[0] | retired[1] | retired[2]))
#define is_live(slot) ((live_slots >> (slot) & 1) != 0)
#ifdef BUG_PLACE_WHILE_DRAINING
#define is_stable(server) ((server) == 1 || !draining || _pid < NR_WRITERS)
#else
#define is_stable(server) ((server) == 1 || !draining)
#endif

byte used = USED_AT_FIRST, retired[3];
byte reverse[2 * NR_SLOTS] = { 0, 1 };
byte bytes[2 * NR_SLOTS] = { 1, 2 };
bool draining;
bool in_turn[NR_WRITERS]; /* what sys_rcu_synchronize waits for */

/* ---- epoch.h, reap.c ---- */

byte epoch_now, inside[3];
byte nr_steps_left;
bool reap_asked;

/* ---- who waits for an entry ---- */

#define READER 0
#define DISCARDER 1
#define DRAIN 2
#define WRITER 3
#define NR_WAITERS (3 + NR_WRITERS)

bool lock;
byte nr_waiters;
byte queued[NR_WAITERS]; /* entry + 1 */

/* ---- what the properties need to know; the protocol does not look at it ---- */

byte value[NR_ENTRIES] = OF_EACH_ENTRY(1, 2); /* what a read that is done in one moment would return */
byte nr_changes[NR_ENTRIES];
byte read_page = NO_PAGE;    /* the entry that is being read... */
byte read_values;	     /* ...and what it has been since the read began, a bit each */
byte at[2 * NR_SLOTS];	     /* reads and moves that have loaded a word that names the slot, and are not done with it */
byte nr_faults = NR_FAULTS;
byte nr_ended;
bool drained, failed;

#define NR_PROCESSES (3 + NR_WRITERS)
#define first_value(e) (1 + (e))
#define written_value(writer, i) (1 + NR_ENTRIES + (writer) * NR_WRITES + (i))

/* The entry's word has changed, and with it perhaps what is in it. Part of the step that changes the word. */
inline commit(e, new_value)
{
	nr_changes[e]++;
	assert(nr_changes[e] < 8);
	assert(!drained || !word_has_slot(word[e]) || word_slot(word[e]) >= NR_SLOTS);
	value[e] = new_value;
	if
	:: read_page == e -> read_values = read_values | 1 << new_value
	:: else
	fi
}

/* ---- epoch.h ---- */

/*
 * The increment and the second look are one step: when the number has moved in between there, the caller tries again, and
 * has only kept the number from moving on.
 */
inline epoch_enter()
{
	do
	:: bucket = epoch_now;
	   atomic {
		if
#ifdef BUG_EPOCH_WITHOUT_SECOND_LOOK
		:: true -> inside[bucket]++; break
#else
		:: epoch_now == bucket -> inside[bucket]++; break
		:: else
#endif
		fi
	   }
	od
}

inline epoch_exit()
{
	inside[bucket]--
}

/* ---- slab.c ---- */

/* Nobody is at the slot, and no word names it: it may be freed, or given to the next. */
inline assert_unused(slot)
{
	assert(at[slot] == 0);
	named = 0;
	do
	:: named == NR_ENTRIES -> break
	:: named < NR_ENTRIES -> assert(!word_is_at(word[named], slot)); named++
	od;
	named = 0
}

inline slot_take(server, page, ret_slot)
{
	ret_slot = server * NR_SLOTS;
	do
	:: ret_slot == (server + 1) * NR_SLOTS -> ret_slot = NO_SLOT; break
	:: ret_slot < (server + 1) * NR_SLOTS && (used >> ret_slot & 1) -> ret_slot++
	:: ret_slot < (server + 1) * NR_SLOTS && !(used >> ret_slot & 1) ->
	   assert(!(drained && server == 0));
	   assert_unused(ret_slot);
	   reverse[ret_slot] = page;
	   used = used | 1 << ret_slot;
	   break
	od;
	named = 0
}

/* Looks for a server, then takes a slot there: two steps. */
inline slot_alloc(page, ret_slot)
{
	ret_slot = NO_SLOT;
	if
	:: is_stable(0) && has_room(0) -> d_step { slot_take(0, page, ret_slot) }
	:: is_stable(1) && has_room(1) -> d_step { slot_take(1, page, ret_slot) }
	:: else
	fi
}

inline slot_free_unused(slot)
{
	used = used & ~(1 << slot)
}

inline slot_retire(slot)
{
#ifdef BUG_FREE_AT_ONCE
	d_step { assert_unused(slot); used = used & ~(1 << (slot)) }
#else
	d_step { retired[epoch] = retired[epoch] | 1 << (slot); reap_asked = true; epoch = 0 }
#endif
}

/* The word that named the slot has been unpublished, and the caller is in an epoch. */
inline reap_retire(slot)
{
	epoch = epoch_now;
	slot_retire(slot)
}

/* ---- table.h, table.c ---- */

/*
 * One step: there it is repeated until nothing has come between the word and the checksum. From then on until at_done the
 * caller is at the slot that the word names.
 */
inline table_look(e, at_slot)
{
	atomic {
		w = word[e];
		sum = checksum[e];
		at_slot = (word_has_slot(w) && !word_is_claimed(w) -> word_slot(w) : NO_SLOT);
		if
		:: at_slot != NO_SLOT -> at[at_slot]++
		:: else
		fi
	}
}

inline at_done(at_slot)
{
	if
	:: at_slot != NO_SLOT -> assert(at[at_slot] > 0); at[at_slot]--; at_slot = NO_SLOT
	:: else
	fi
}

/* Queues on an entry that was seen claimed, and waits for its owner. lock keeps it from being seen in between. */
inline table_wait(me, e)
{
#ifdef BUG_LOOK_BEFORE_QUEUEING
	if
	:: word_is_claimed(word[e]) ->
	   atomic { !lock -> queued[me] = e + 1; nr_waiters++ }
	:: else
	fi;
#else
	atomic { !lock -> lock = true; queued[me] = e + 1; nr_waiters++ }
	d_step {
		if
		:: !word_is_claimed(word[e]) -> queued[me] = 0; nr_waiters--
		:: else
		fi;
		lock = false
	}
#endif
	queued[me] == 0
}

inline table_wake(e)
{
	d_step {
		!lock;
		do
		:: waiter == NR_WAITERS -> break
		:: waiter < NR_WAITERS && queued[waiter] == e + 1 -> queued[waiter] = 0; nr_waiters--; waiter++
		:: waiter < NR_WAITERS && queued[waiter] != e + 1 -> waiter++
		od;
		waiter = 0
	}
}

inline table_publish(e, new, new_value)
{
	d_step {
		assert(word_is_claimed(word[e]));
		word[e] = new;
		commit(e, new_value)
	}
	if
	:: nr_waiters != 0 -> table_wake(e)
	:: else
	fi
}

/* ---- backends ---- */

inline backend_write(slot, what)
{
	bytes[slot] = TORN;
	bytes[slot] = what
}

inline backend_read(slot, ret_what)
{
	if
	:: ret_what = bytes[slot]
	:: atomic { nr_faults > 0 -> nr_faults--; ret_what = WRONG; fault = true }
	fi
}

/* ---- write.c ---- */

active [NR_WRITERS] proctype writer()
{
	byte i, e, w, old, slot, bucket, epoch, named, waiter;
	bool fresh;

	do
	:: i == NR_WRITES -> break
	:: i < NR_WRITES ->
#if NR_ENTRIES > 1
	   if
	   :: e = 0
	   :: e = 1
	   fi;
#endif
	   do
	   :: d_step { in_turn[_pid] = true; w = word[e] }
	      if
	      :: word_is_claimed(w) ->
		 in_turn[_pid] = false;
		 table_wait(WRITER + _pid, e)
	      :: else ->
		 if
		 :: word_has_slot(w) && is_stable(word_slot(w) / NR_SLOTS) -> d_step { fresh = false; slot = word_slot(w) }
		 :: else -> fresh = true; slot_alloc(e, slot)
		 fi;
		 if
		 :: slot == NO_SLOT -> /* room_wait; nothing is claimed */
		    in_turn[_pid] = false;
		    ((is_stable(0) && has_room(0)) || (is_stable(1) && has_room(1)) || word[e] != w)
		 :: else ->
		    atomic {
			if
			:: word[e] == w -> word[e] = w | WORD_CLAIMED; in_turn[_pid] = false; break
			:: else
			fi
		    }
		    if
		    :: fresh -> slot_free_unused(slot)
		    :: else
		    fi;
		    in_turn[_pid] = false
		 fi
	      fi
	   od;
	   /* Claimed. The I/O, then what write_done does, in a later turn. */
#ifndef BUG_PUBLISH_BEFORE_BYTES
	   backend_write(slot, written_value(_pid, i));
#endif
	   epoch_enter();
	   checksum[e] = written_value(_pid, i);
	   d_step { old = word[e]; assert(old == (w | WORD_CLAIMED)) }
	   table_publish(e, word_next(old, slot + 1), written_value(_pid, i));
	   if
	   :: word_has_slot(old) && word_slot(old) != slot -> reap_retire(word_slot(old))
	   :: else
	   fi;
	   epoch_exit();
#ifdef BUG_PUBLISH_BEFORE_BYTES
	   backend_write(slot, written_value(_pid, i));
#endif
	   d_step { i++; e = 0; w = 0; old = 0; slot = 0; bucket = 0; epoch = 0; fresh = false }
	od;
	nr_ended++
}

/* ---- read.c ---- */

active proctype reader()
{
	byte i, e, w, sum, got, slot, seen, bucket;
	bool fault;

	do
	:: i == NR_READS -> break
	:: i < NR_READS ->
#if NR_ENTRIES > 1
	   if
	   :: e = 0
	   :: e = 1
	   fi;
#endif
	   d_step { read_page = e; read_values = 1 << value[e] }
	   epoch_enter();
	   do
	   :: table_look(e, slot);
	      if
	      :: word_is_claimed(w) -> table_wait(READER, e)
	      :: !word_is_claimed(w) && slot == NO_SLOT -> got = 0; break
	      :: !word_is_claimed(w) && slot != NO_SLOT ->
		 atomic { fault = false; backend_read(slot, got); assert(at[slot] > 0); at[slot]-- }
		 if
		 :: got == sum -> break
		 :: else -> /* read_mismatch: somebody was quicker, or the bytes are wrong */
		    d_step { got = sum; seen = slot }
		    table_look(e, slot);
		    atomic {
			assert(fault || word_is_claimed(w) || slot != seen || sum != got);
			at_done(slot)
		    }
		 fi
	      fi
	   od;
	   atomic {
		assert(read_values >> got & 1);
		epoch_exit();
		read_page = NO_PAGE;
		read_values = 0;
		i++; e = 0; w = 0; sum = 0; got = 0; slot = 0; seen = 0; bucket = 0; fault = false
	   }
	od;
	nr_ended++
}

/* ---- discard.c ---- */

active proctype discarder()
{
	byte i, e, w, bucket, epoch, named;
	bool done;

	do
	:: i == NR_DISCARDS -> break
	:: i < NR_DISCARDS ->
#if NR_ENTRIES > 1
	   if
	   :: e = 0
	   :: e = 1
	   fi;
#endif
	   do
	   :: epoch_enter();
	      do
	      :: w = word[e];
		 if
		 :: word_is_claimed(w) -> done = false; break
		 :: !word_is_claimed(w) && !word_has_slot(w) -> done = true; break
		 :: !word_is_claimed(w) && word_has_slot(w) ->
#ifdef BUG_EPOCH_READ_BEFORE_UNPUBLISHING
		    epoch = epoch_now;
#endif
		    d_step {
			done = word[e] == w;
			if
			:: done -> word[e] = word_next(w, 0); commit(e, 0)
			:: else
			fi
		    }
		    if
#ifdef BUG_EPOCH_READ_BEFORE_UNPUBLISHING
		    :: done -> slot_retire(word_slot(w)); break
#else
		    :: done -> reap_retire(word_slot(w)); break
#endif
		    :: else
		    fi
		 fi
	      od;
	      epoch_exit();
	      if
	      :: done -> break
	      :: else -> table_wait(DISCARDER, e)
	      fi
	   od;
	   atomic { i++; e = 0; w = 0; bucket = 0; epoch = 0; done = false }
	od;
	nr_ended++
}

/* ---- mover.c ---- */

/* Moves the page of `slot`, of which `w` and `sum` were looked up inside the epoch. */
inline move()
{
	backend_read(slot, got);
#ifdef BUG_SWING_UNVERIFIED
	if
	:: true ->
#else
	if
	:: got != sum -> /* move_give_up */
	   if
	   :: word[e] == w -> stuck = true
	   :: else
	   fi
	:: else ->
#endif
	   slot_alloc(e, to);
	   if
	   :: to == NO_SLOT -> no_room = true
	   :: else ->
	      backend_write(to, got);
	      d_step {
#ifdef BUG_SWING_WITHOUT_GENERATION
		swung = (word[e] & (WORD_CLAIMED | 15)) == (w & (WORD_CLAIMED | 15));
#else
		swung = word[e] == w;
#endif
		if
		:: swung -> word[e] = word_next(w, to + 1); commit(e, value[e])
		:: else
		fi
	      }
	      if
	      :: swung -> reap_retire(slot); moved = true
#ifdef BUG_REFUSED_SWING_KEEPS_SLOT
	      :: else
#else
	      :: else -> slot_free_unused(to)
#endif
	      fi
	   fi
	fi
}

/* ---- drain.c ---- */

/* One slot of the walk. */
inline drain_look()
{
	epoch_enter();
	e = reverse[slot];
	table_look(e, at_slot);
	if
	:: word_is_claimed(w) -> busy = (busy == NO_PAGE -> e : busy)
	:: !word_is_claimed(w) && word_is_at(w, slot) -> move()
	:: !word_is_claimed(w) && !word_is_at(w, slot) -> orphan = slot
	fi;
	atomic {
		at_done(at_slot);
		epoch_exit();
		e = 0; w = 0; sum = 0; got = 0; bucket = 0; to = 0; at_slot = 0; swung = false; fault = false
	}
}

/* drain_end_pass. When it comes to its end, another pass begins. */
inline drain_end_pass()
{
	if
#ifdef BUG_DRAINED_WITHOUT_COUNTING
	:: !moved && !no_room -> drained = true
#else
	:: (used & SLOTS_OF_0) == 0 -> drained = true
#endif
	:: else ->
	   if
	   :: no_room -> ((used & SLOTS_OF_0) == 0 || has_room(1)) /* mover_slots_freed, or the timer */
	   :: !no_room && moved
	   :: !no_room && !moved && busy != NO_PAGE ->
	      if
	      :: word_is_claimed(word[busy]) -> table_wait(DRAIN, busy)
	      :: else
	      fi
	   :: !no_room && !moved && busy == NO_PAGE && orphan != NO_SLOT -> /* the timer */
	      (!is_live(orphan) || word_is_claimed(word[reverse[orphan]]) || word_is_at(word[reverse[orphan]], orphan))
	   :: !no_room && !moved && busy == NO_PAGE && orphan == NO_SLOT && stuck -> failed = true
	   :: !no_room && !moved && busy == NO_PAGE && orphan == NO_SLOT && !stuck ->
	      /* mover_slots_freed: what is left is retired; or live again, and new to the pass */
	      ((used & SLOTS_OF_0) == 0 || (live_slots & SLOTS_OF_0) != 0)
	   fi
	fi
}

inline drain_pass()
{
	d_step { slot = 0; moved = false; no_room = false; stuck = false; busy = NO_PAGE; orphan = NO_SLOT }
	do
	:: slot == NR_SLOTS || no_room -> slot = 0; break
	:: slot < NR_SLOTS && !no_room && !is_live(slot) -> slot++
	:: slot < NR_SLOTS && !no_room && is_live(slot) -> drain_look(); slot++
	od
}

active proctype drain()
{
	byte slot, e, w, sum, got, to, at_slot, bucket, epoch, named;
	byte busy, orphan, i;
	bool moved, no_room, stuck, swung, fault;

#ifdef MOVE_UNDRAINED
	drain_pass();
#else
	/* vswap_drain */
	draining = true;
#ifndef BUG_NO_SYNCHRONIZE
	do
	:: i == NR_WRITERS -> break
	:: i < NR_WRITERS -> !in_turn[i]; i++
	od;
#endif
	do
	:: drained || failed -> break
	:: !drained && !failed ->
	   drain_pass();
	   drain_end_pass()
	od;
	assert(!failed || nr_faults < NR_FAULTS);
#endif
	atomic {
		busy = 0; orphan = 0; moved = false; no_room = false; stuck = false; i = 0;
		assert(!drained || (used & SLOTS_OF_0) == 0);
		do
		:: i == NR_ENTRIES -> break
		:: i < NR_ENTRIES ->
		   assert(!drained || !word_has_slot(word[i]) || word_slot(word[i]) >= NR_SLOTS);
		   i++
		od;
		i = 0
	}
	nr_ended++
}

/* ---- reap.c ---- */

/* At the end: each entry holds what was written last, and the slots in use are those that words name. */
inline check_end()
{
	i = 0;
	do
	:: i == NR_ENTRIES -> break
	:: i < NR_ENTRIES ->
	   assert(!word_is_claimed(word[i]));
	   if
	   :: word_has_slot(word[i]) ->
	      assert(bytes[word_slot(word[i])] == value[i] && checksum[i] == value[i]);
	      assert(reverse[word_slot(word[i])] == i);
	      assert(!(named >> word_slot(word[i]) & 1));
	      named = named | 1 << word_slot(word[i])
	   :: else -> assert(value[i] == 0)
	   fi;
	   i++
	od;
	assert(used == named);
	assert((retired[0] | retired[1] | retired[2]) == 0)
}

active proctype reaper()
{
	byte i, named;

	do
	:: atomic { reap_asked -> reap_asked = false; nr_steps_left = 3 } /* reap_asked: EPOCH_BUCKETS */
#ifdef BUG_EPOCH_WITHOUT_LOOKING
	:: nr_steps_left > 0 ->
#else
	:: nr_steps_left > 0 && inside[(epoch_now + 2) % 3] == 0 ->
#endif
	   d_step {
		epoch_now = (epoch_now + 1) % 3;
		nr_steps_left--;
		/* slab_free_retired(now - 2); only this process moves the number, so nobody retires there meanwhile. */
		do
		:: i == 2 * NR_SLOTS -> break
		:: i < 2 * NR_SLOTS ->
		   if
		   :: retired[(epoch_now + 1) % 3] >> i & 1 -> assert_unused(i)
		   :: else
		   fi;
		   i++
		od;
		i = 0;
		used = used & ~retired[(epoch_now + 1) % 3];
		retired[(epoch_now + 1) % 3] = 0
	   }
	:: nr_ended == NR_PROCESSES && !reap_asked && nr_steps_left == 0 -> break
	od;
	atomic { check_end() }
}

#ifdef LIVENESS
ltl drain_ends { <> drained }
ltl waiters_are_woken { [] (nr_waiters != 0 -> <> (nr_waiters == 0)) }
#endif
