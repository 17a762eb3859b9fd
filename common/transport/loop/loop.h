/*
 * The loop transport: initiator and lender in one process, no socket between them.
 *
 * It keeps the contract of transport.h to the letter (tokens are checked, connections fenced, leases renewed) and uses
 * nothing but the reactor it is attached to and that reactor's clock, so that it runs on manual reactors under simulated
 * time. The target's calls come on the initiators' reactors.
 */
#ifndef FARSWAP_COMMON_TRANSPORT_LOOP_LOOP_H
#define FARSWAP_COMMON_TRANSPORT_LOOP_LOOP_H

#include "common/transport/target.h"
#include "common/transport/transport.h"

/*
 * A driver whose connections all lead to target, whatever address they ask for. The target lives as long as the driver,
 * and the driver as long as any connection. NULL when there is no memory.
 *
 * A connection is fenced on its own reactor: connect waits for that reactor's turn when its thread runs, and else does
 * the work itself. It is not called on a reactor's thread.
 */
struct transport_driver *loop_driver_create(struct transport_target *target);
/* Every connection has been closed. Accepts NULL. */
void loop_driver_free(struct transport_driver *driver);

#endif
