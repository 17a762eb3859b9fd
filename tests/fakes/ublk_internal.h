/* What the control device (ublk_control.c) has to know and to say of the queue (ublk.c). Control thread. */
#ifndef FARSWAP_TESTS_FAKES_UBLK_INTERNAL_H
#define FARSWAP_TESTS_FAKES_UBLK_INTERNAL_H

#include "common/base/base.h"

/* How commands of the queue are numbered, and what a server that fetches is told: 0, or an error. */
void fake_ublk_encode(bool encoded, int fetch_error);
/* Whether a server has fetched for every tag. */
bool fake_ublk_is_fetched(void);
/* As the driver does when the device is stopped. The reactor that has fetched runs. */
void fake_ublk_end_fetched(void);

#endif
