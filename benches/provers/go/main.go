// SPDX-License-Identifier: MIT OR Apache-2.0

// gnark: a chain of SIZE squarings, proved with Groth16 over BN254.
//
// A negative control: the Go runtime maps its own memory and never calls
// malloc, so no preloaded allocator can change anything about this row.
//
// The protocol on standard output is that of workloads/meter.py.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/consensys/gnark-crypto/ecc"
	"github.com/consensys/gnark/backend/groth16"
	"github.com/consensys/gnark/backend/witness"
	"github.com/consensys/gnark/constraint"
	"github.com/consensys/gnark/frontend"
	"github.com/consensys/gnark/frontend/cs/r1cs"
	"github.com/consensys/gnark/logger"
)

// chain proves that Y is X after `length` steps of x -> x*x + i.
type chain struct {
	X      frontend.Variable
	Y      frontend.Variable `gnark:",public"`
	length int
}

func (c *chain) Define(api frontend.API) error {
	state := c.X
	for i := range c.length {
		state = api.Add(api.Mul(state, state), i)
	}
	api.AssertIsEqual(state, c.Y)
	return nil
}

func output(input int64, length int) *big.Int {
	field := ecc.BN254.ScalarField()
	state := big.NewInt(input)
	for i := range length {
		state.Mul(state, state).Add(state, big.NewInt(int64(i))).Mod(state, field)
	}
	return state
}

// keys loads the keys of the circuit, made and saved where they are missing.
func keys(
	circuit constraint.ConstraintSystem, name string,
) (groth16.ProvingKey, groth16.VerifyingKey) {
	provingKey := groth16.NewProvingKey(ecc.BN254)
	verifyingKey := groth16.NewVerifyingKey(ecc.BN254)
	if _, err := os.Stat(name + ".vk"); err != nil {
		provingKey, verifyingKey, err = groth16.Setup(circuit)
		check(err)
		save(name+".pk", provingKey.WriteRawTo)
		save(name+".vk", verifyingKey.WriteRawTo) // last: it says that both are there
		return provingKey, verifyingKey
	}
	load(name+".pk", provingKey.UnsafeReadFrom)
	load(name+".vk", verifyingKey.ReadFrom)
	return provingKey, verifyingKey
}

func save(name string, write func(io.Writer) (int64, error)) {
	file, err := os.Create(name + ".part")
	check(err)
	_, err = write(file)
	check(err)
	check(file.Close())
	check(os.Rename(name+".part", name))
}

func load(name string, read func(io.Reader) (int64, error)) {
	file, err := os.Open(name)
	check(err)
	_, err = read(bufio.NewReaderSize(file, 1<<20))
	check(err)
	check(file.Close())
}

func say(line map[string]any) {
	text, err := json.Marshal(line)
	check(err)
	fmt.Println(string(text))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func usage() syscall.Rusage {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage
}

func seconds(time syscall.Timeval) float64 {
	return float64(time.Sec) + float64(time.Usec)*1e-6
}

func peakRSS() int {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	peak, err := strconv.Atoi(strings.Fields(rest)[0])
	check(err)
	return peak
}

func main() {
	started := time.Now()
	size := flag.Int("size", 0, "multiplications")
	proofs := flag.Int("proofs", 0, "proofs to make")
	threads := flag.Int("threads", 1, "threads")
	data := flag.String("data", "", "folder for keys")
	flag.Parse()
	runtime.GOMAXPROCS(*threads)
	logger.Disable()

	field := ecc.BN254.ScalarField()
	circuit, err := frontend.Compile(field, r1cs.NewBuilder, &chain{length: *size})
	check(err)
	provingKey, verifyingKey := keys(circuit, filepath.Join(*data, fmt.Sprintf("chain-%d", *size)))
	expected := output(3, *size)
	full, err := frontend.NewWitness(&chain{X: 3, Y: expected}, field)
	check(err)
	public, err := full.Public()
	check(err)
	wrong, err := frontend.NewWitness(
		&chain{X: 3, Y: new(big.Int).Add(expected, big.NewInt(1))}, field)
	check(err)
	wrongPublic, err := wrong.Public()
	check(err)

	say(map[string]any{
		"ready":   os.Getpid(),
		"setup_s": time.Since(started).Seconds(),
		"what":    fmt.Sprintf("%d multiplications", *size),
	})
	for number := range *proofs {
		before := usage()
		start := time.Now()
		proof, err := groth16.Prove(circuit, provingKey, full)
		wall := time.Since(start).Seconds()
		after := usage()
		check(err)
		accepts := func(public witness.Witness) bool {
			return groth16.Verify(proof, verifyingKey, public) == nil
		}
		verified := accepts(public) && !accepts(wrongPublic)
		say(map[string]any{
			"proof":        number,
			"wall_s":       wall,
			"user_s":       seconds(after.Utime) - seconds(before.Utime),
			"sys_s":        seconds(after.Stime) - seconds(before.Stime),
			"minor_faults": after.Minflt - before.Minflt,
			"verified":     verified,
			"peak_rss_kib": peakRSS(),
		})
		if !verified {
			log.Fatalf("proof %d was refused by the prover's own verifier", number)
		}
	}
}
