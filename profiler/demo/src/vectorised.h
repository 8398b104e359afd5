/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * vectorised.h - compile a function once per vector unit.
 *
 * Real provers live off AVX2 and AVX-512; a prover without them would look
 * less memory-bound than it is.  A VECTORISED function holds plain loops; the
 * compiler makes a version of it for each unit and the loader picks one (GNU
 * ifuncs).  Where compiler or C library cannot, which CMakeLists.txt tries
 * out, there is one version, for the machine that the compiler was told of.
 */
#ifndef DEMO_VECTORISED_H
#define DEMO_VECTORISED_H

#ifdef DEMO_VECTOR_UNITS
#define VECTORISED __attribute__((target_clones(DEMO_VECTOR_UNITS)))
#else
#define VECTORISED
#endif

#endif
