/* A pipeline that follows a script: the model's name says what happens. It stands for all of inference.h, so that what
 * the doors do with every outcome can be tested without a model.
 *
 *   ok        "Hello" and " world" in two events with log-probabilities, then stop
 *   absent, busy, down, long   ERR_NOT_FOUND, ERR_BUSY, ERR_UNAVAILABLE, ERR_TOO_LONG before anything is admitted
 *   breaks    admitted, one text, then ERR_IO
 *   late      as ok, after two and a half seconds
 *   ticking   admitted, a text every 5 ms until it is cancelled
 *   silent    admitted, then nothing until it is cancelled
 *   waiting   not admitted until it is cancelled
 *   flood     admitted, texts of 16 KiB without a pause, 64 MiB in all
 *   calls     reasoning, then two calls
 *   mixed     reasoning, text, a call, text again; length ends it
 *   broken calls, half a call   a call that is taken back; one that length cuts off
 *   long call a call with 10,000 bytes of arguments, in pieces
 *   filtered  "Hel", which the provider's filter ends
 *   stopped   "Hello", ended by the request's last stop string
 *   bad arguments   a call whose arguments are no JSON
 *   show      says the messages that it got, and in how sensitive a context
 *
 * Requests that keep their turn are recorded in the island's ledger as the pipeline does, labelled "internal" (or as
 * their context) and personal; those of "ultra" with a level and a flag that nobody knows. */
#ifndef POLDER_TESTS_SERVER_SCRIPTED_H
#define POLDER_TESTS_SERVER_SCRIPTED_H

#include <stdatomic.h>

extern atomic_int scripted_running;   /* pipelines under way now */
extern atomic_int scripted_cancelled; /* that ended because the sink said so */
extern atomic_int scripted_runs;
extern atomic_llong scripted_bytes; /* of text that sinks took */

#endif
