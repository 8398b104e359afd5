// SPDX-License-Identifier: MIT OR Apache-2.0
// cargo wants a target; CMakeLists.txt builds the C program.
