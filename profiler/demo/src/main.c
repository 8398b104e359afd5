/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * main.c - zkprof-demo-prover: prove, verify, report, repeat.
 *
 * Each proof has its own secret and is verified by a verifier that sees the
 * bytes only.  A line per proof tells what it cost: wall and CPU time of
 * proving, and the minor page faults it took.  The last line is the summary.
 *
 * Exit codes: 0 every proof was accepted, 1 one was not (or memory ran out),
 * 2 wrong usage.
 */
#include <getopt.h>
#include <sys/resource.h>
#include <time.h>

#include "parallel.h"
#include "proof.h"
#include "stark.h"
#include "transcript.h"

struct options {
    unsigned log_rows, proofs, threads;
    bool json, paced;
};

struct usage {
    double wall, user, system;
    long minor_faults, peak_kib;
};

static struct usage usage_now(void)
{
    struct timespec now;
    struct rusage r;
    clock_gettime(CLOCK_MONOTONIC, &now);
    getrusage(RUSAGE_SELF, &r);
    return (struct usage){
        .wall = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec,
        .user = (double)r.ru_utime.tv_sec + 1e-6 * (double)r.ru_utime.tv_usec,
        .system = (double)r.ru_stime.tv_sec + 1e-6 * (double)r.ru_stime.tv_usec,
        .minor_faults = r.ru_minflt,
        .peak_kib = r.ru_maxrss,
    };
}

static const char help[] =
    "Usage: zkprof-demo-prover [OPTION]...\n"
    "Prove the end of a long permutation chain with a small STARK, verify\n"
    "the proof, and repeat.\n"
    "\n"
    "  --log-rows N   2^N rows of trace, 6 to 22 (default 16)\n"
    "  --proofs K     proofs to make (default 5)\n"
    "  --threads T    threads, 1 to 64 (default 1)\n"
    "  --json         one JSON object per line\n"
    "  --paced        wait for a line of input before each proof, end with it\n"
    "  --help         this text\n";

static bool parse_number(const char *text, unsigned low, unsigned high,
                         unsigned *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value < low ||
        value > high)
        return false;
    *out = (unsigned)value;
    return true;
}

static struct options parse(int argc, char **argv)
{
    struct options o = {.log_rows = 16, .proofs = 5, .threads = 1};
    const struct {
        const char *name;
        unsigned low, high, *out;
    } numbers[] = {
        {"log-rows", PROOF_MIN_LOG_ROWS, PROOF_MAX_LOG_ROWS, &o.log_rows},
        {"proofs", 1, 1000000, &o.proofs},
        {"threads", 1, PARALLEL_MAX, &o.threads},
    };
    const struct option names[] = {{"log-rows", required_argument, NULL, 0},
                                   {"proofs", required_argument, NULL, 1},
                                   {"threads", required_argument, NULL, 2},
                                   {"json", no_argument, NULL, 'j'},
                                   {"paced", no_argument, NULL, 'p'},
                                   {"help", no_argument, NULL, 'h'},
                                   {0}};
    int which;
    while ((which = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (which == 'j') {
            o.json = true;
        } else if (which == 'p') {
            o.paced = true;
        } else if (which == 'h') {
            fputs(help, stdout);
            exit(0);
        } else if (which > 2 ||
                   !parse_number(optarg, numbers[which].low,
                                 numbers[which].high, numbers[which].out)) {
            if (which <= 2)
                fprintf(stderr,
                        "zkprof-demo-prover: --%s takes a whole number from "
                        "%u to %u, not '%s'\n",
                        numbers[which].name, numbers[which].low,
                        numbers[which].high, optarg);
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "zkprof-demo-prover: '%s' is no option; see --help\n",
                argv[optind]);
        exit(2);
    }
    return o;
}

/* A secret that differs from proof to proof and is the same in every run. */
static void secret_of(unsigned proof, fe secret[AIR_SECRET])
{
    transcript t = transcript_start(&proof, sizeof proof);
    for (unsigned k = 0; k < AIR_SECRET; k += EXT_DEGREE) {
        ext four = transcript_challenge(&t);
        memcpy(&secret[k], &four, sizeof four);
    }
}

static bool run_one(const struct options *o, unsigned index)
{
    fe secret[AIR_SECRET];
    secret_of(index, secret);

    struct statement statement;
    size_t size;
    struct usage before = usage_now();
    uint8_t *proof =
        stark_prove(o->log_rows, secret, o->threads, &statement, &size);
    struct usage after = usage_now();
    const char *why = stark_verify(&statement, proof, size);
    struct usage done = usage_now();
    free(proof);

    if (why != NULL)
        fprintf(stderr, "zkprof-demo-prover: proof %u rejected: %s\n", index,
                why);
    double seconds = after.wall - before.wall;
    double user = after.user - before.user;
    double system = after.system - before.system;
    long faults = after.minor_faults - before.minor_faults;
    if (o->json)
        printf("{\"proof\": %u, \"seconds\": %.6f, \"user_seconds\": %.6f, "
               "\"system_seconds\": %.6f, \"minor_faults\": %ld, "
               "\"verify_seconds\": %.6f, \"proof_bytes\": %zu, "
               "\"verified\": %s}\n",
               index, seconds, user, system, faults, done.wall - after.wall,
               size, why == NULL ? "true" : "false");
    else
        printf("proof %-3u %7.3f s  (user %.3f, system %.3f)  %7ld faults  "
               "%s\n",
               index, seconds, user, system, faults,
               why == NULL ? "verified" : "REJECTED");
    fflush(stdout);
    return why == NULL;
}

/* Wait for the end of a line; false at the end of input. */
static bool next_line(void)
{
    int c;
    while ((c = getchar()) != '\n')
        if (c == EOF)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    unsigned proofs = 0, accepted = 0;
    while (proofs < o.proofs && (!o.paced || next_line()))
        accepted += run_one(&o, proofs++);

    struct usage end = usage_now();
    if (o.json)
        printf("{\"proofs\": %u, \"verified\": %u, \"log_rows\": %u, "
               "\"threads\": %u, \"peak_rss_bytes\": %ld}\n",
               proofs, accepted, o.log_rows, o.threads, end.peak_kib * 1024);
    else
        printf("%u of %u proofs verified, peak memory %.0f MB\n", accepted,
               proofs, (double)end.peak_kib / 1e6 * 1024);
    return accepted == proofs ? 0 : 1;
}
