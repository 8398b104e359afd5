/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_hash.c - BLAKE2s against published and independent values.
 *
 * "abc" is the example of RFC 7693, appendix B; the others were computed by
 * CPython's hashlib.blake2s, on the bytes 0, 7, 14, ... modulo 256.
 */
#include <string.h>

#include "hash.h"
#include "testing.h"

static void check(const char *person, const void *data, size_t len,
                  const char *expected)
{
    digest got = hash(person, data, len);
    char hex[2 * sizeof got.bytes + 1];
    for (size_t i = 0; i < sizeof got.bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", got.bytes[i]);
    if (strcmp(hex, expected) != 0) {
        fprintf(stderr, "%zu bytes: got %s, expected %s\n", len, hex, expected);
        exit(1);
    }
}

static const struct {
    size_t len;
    const char *person, *digest;
} vectors[] = {
    {1, NULL,
     "e34d74dbaf4ff4c6abd871cc220451d2"
     "ea2648846c7757fbaac82fe51ad64bea"},
    {1, "zkdLeaf.",
     "1e1c9625b587e51c46f9b922dbb53c44"
     "d4e1203363a7b77b97a5e429746dc329"},
    {63, NULL,
     "8711b32e3542deae1acce6409fec6577"
     "d9ca7daf80e1dcb5534236beea38e6b3"},
    {63, "zkdLeaf.",
     "5d8380a41a37aa0cec1ab9805e44487a"
     "bf45e901749f5f6b03a25273e66410b9"},
    {64, NULL,
     "b09537398e20f8cd56dca19d34b4b467"
     "633721bef880f40f2f707ebffd097551"},
    {64, "zkdLeaf.",
     "efa1c9f032cdec133263e15ca83c86c1"
     "1ec8f3c347c597002837a8991af65d58"},
    {65, NULL,
     "8936ffcf32a157440820fc06674e4682"
     "f76fe78fa7184bfad264c2f6eff6a151"},
    {65, "zkdLeaf.",
     "16dfa82d118d557d3f6670cce46c80c7"
     "8a29e5835f7114168091d580ac508582"},
    {128, NULL,
     "9462ab46c9c7779556af81a31d87fe18"
     "4e631d5e4836bbda5998669d86a6544b"},
    {128, "zkdLeaf.",
     "6cbc627d79e03f683e9e43a834f1487f"
     "33f3732068e176d10e4cd01e277455cb"},
    {200, NULL,
     "4954f84ca29ed06714c1732e2a8a199a"
     "9e784009e9495d04dc7736bdca41233d"},
    {200, "zkdLeaf.",
     "1f36958e2e1ad97271c2d3ecbde034b3"
     "51d11dd2e82dba239a614c74e4863af2"},
    {300, NULL,
     "06757fefabf45545dca724a7bb1fe5af"
     "57d5e7ebc6f51c1b86028262f04abad9"},
    {300, "zkdLeaf.",
     "fe88a84375c0b104cd1ffa32c5ddbdb8"
     "cd8ee30f7304921a74cba037dd9dcf37"},
};

int main(void)
{
    check(NULL, "abc", 3,
          "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
    check(NULL, "", 0,
          "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9");

    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(7 * i);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        check(vectors[i].person, data, vectors[i].len, vectors[i].digest);

    /* Many rows at once are the same as each alone, whatever their number. */
    enum { ROW = 15, ROWS = 20 };
    digest together[ROWS];
    for (size_t count = 0; count <= ROWS; count++) {
        memset(together, 0, sizeof together);
        hash_rows("zkdLeaf.", data, ROW, count, together);
        for (size_t i = 0; i < count; i++) {
            digest alone = hash("zkdLeaf.", data + i * ROW, ROW);
            CHECK(memcmp(&alone, &together[i], sizeof alone) == 0);
        }
    }
    return 0;
}
