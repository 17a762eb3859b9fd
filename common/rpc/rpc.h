/*
 * Remote procedure calls for the control plane: messages of protobuf-c over the C core of gRPC, as plain blocking code.
 *
 *   status.h  codes and messages
 *   server.h  to answer calls
 *   client.h  to make them
 *
 * This room is the only place that sees grpc_* and the runtime of protobuf-c. Others fill and read generated
 * structures, and leave packing, unpacking and freeing to it. It allocates and has threads of its own, and shares
 * neither lock nor thread nor pool with the data path.
 *
 * There is no encryption and no authentication of peers yet; see credentials.c.
 */
#ifndef FARSWAP_COMMON_RPC_RPC_H
#define FARSWAP_COMMON_RPC_RPC_H

#include <protobuf-c/protobuf-c.h>

#include "common/rpc/client.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"

/*
 * Once per process, in main's thread, before any server or client and before any other thread of this process that
 * should not run on a stack of 256 KiB: makes that the default for threads (gRPC's own have no other way to be told,
 * and a daemon that locks its memory pays for all of it), limits malloc to two arenas, and starts gRPC with all signals
 * blocked in its threads. A daemon blocks its signals before (sys_signals_block), since gRPC starts more threads later.
 *
 * After it the process must not fork; posix_spawn is safe.
 */
void rpc_init(void);

/*
 * The same in a process that is not ours, for a library: only gRPC is started, with all signals blocked in its threads; stacks,
 * malloc and gRPC's log stay as the program has them. Once per process, on any thread. Calls that may make gRPC start a thread
 * (rpc_client_create above all) are made with signals blocked, too. What is said about fork holds.
 */
void rpc_init_guest(void);

/*
 * Waits until gRPC has let go of everything, which may take ten seconds after a write that was blocked: for tests and
 * leak checkers. A daemon exits without it. All servers and clients must have been freed. rpc_init may not follow.
 */
void rpc_done(void);

/* Frees a message that rpc_client_call or rpc_stream_recv returned. NULL is passed over. Any thread. */
void rpc_message_free(ProtobufCMessage *message);

#endif
