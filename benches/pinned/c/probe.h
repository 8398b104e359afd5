/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * probe.h - what the driver does with registered memory.
 */
#ifndef PINNED_PROBE_H
#define PINNED_PROBE_H

/* Ask the driver, and print a line of JSON for each question. */
void probe(void);

#endif /* PINNED_PROBE_H */
