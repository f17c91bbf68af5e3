// Command load pushes callbacks as fast as its connections take them, or at a fixed rate, and prints what came of it.
//
// It takes as little of the machine as it can: what it measures shares the cores. Requests are made beforehand, only the counted
// digits of their MessageIds change; with -rate, callbacks are due by a schedule that waits for nobody, and latency counts from
// then (no coordinated omission).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Distinct reports that a connection cycles through, at least; and how long what is overdue may take after the end.
const distinctReports, graceSeconds = 128, 10 * time.Second

// Result is what is printed. All but the last two count from the end of the warming.
type Result struct {
	Requests  int            `json:"requests"`
	OK        int            `json:"ok"`
	ReportsOK int            `json:"reports_ok"`
	Other     map[string]int `json:"other"`
	// Scheduled callbacks that were not sent, as every connection was busy.
	Unsent  int     `json:"unsent"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p999_ms"`
	Max     float64 `json:"max_ms"`
	// User and system, of this program.
	CPU float64 `json:"cpu_seconds"`
	// Answered 200, with the warming.
	Acknowledged int `json:"reports_acknowledged"`
}

type worker struct {
	connection
	requests []*request
	next     uint64
	reports  int
	// Microseconds of each answer of 200.
	latencies    []uint32
	other        map[string]int
	acknowledged int
	last         time.Time
}

// one sends the next request; since is when it was due.
func (w *worker) one(turn int, since, count time.Time) {
	of := w.requests[turn%len(w.requests)]
	w.next = of.number(w.next)
	status, err := w.exchange(of.bytes)
	now := time.Now()
	if status == 200 && err == nil {
		w.acknowledged += w.reports
	}
	if since.Before(count) {
		return
	}
	w.last = now
	switch {
	case err != nil:
		w.other["error"]++
	case status != 200:
		w.other[strconv.Itoa(status)]++
	default:
		w.latencies = append(w.latencies, uint32(now.Sub(since).Microseconds()))
	}
}

func (w *worker) closedLoop(count, end time.Time) {
	for turn := 0; ; turn++ {
		now := time.Now()
		if !now.Before(end) {
			return
		}
		w.one(turn, now, count)
	}
}

func (w *worker) openLoop(due <-chan time.Time, count, end time.Time) {
	turn := 0
	for at := range due {
		if time.Now().After(end.Add(graceSeconds)) {
			w.other["unsent"]++
			continue
		}
		w.one(turn, at, count)
		turn++
	}
}

// schedule says when each callback is due, at that moment; Go's own timers are late by up to a millisecond.
func schedule(rate float64, began, end time.Time) <-chan time.Time {
	due := make(chan time.Time, int(rate*end.Sub(began).Seconds())+1)
	go func() {
		runtime.LockOSThread()
		for number := 0; ; number++ {
			at := began.Add(time.Duration(float64(number) / rate * float64(time.Second)))
			if !at.Before(end) {
				close(due)
				return
			}
			for left := time.Until(at); left > 0; left = time.Until(at) {
				pause := syscall.NsecToTimespec(left.Nanoseconds())
				syscall.Nanosleep(&pause, nil)
			}
			due <- at
		}
	}()
	return due
}

func main() {
	urls := flag.String("url", "", "where to, several separated by commas")
	reports := flag.Int("reports", 10, "in each callback")
	connections := flag.Int("connections", 32, "at once")
	seconds := flag.Float64("seconds", 5, "that count")
	warm := flag.Float64("warm", 0, "seconds before that")
	rate := flag.Float64("rate", 0, "callbacks a second; 0: as fast as they are answered")
	seed := flag.Uint64("seed", 1, "another one makes other reports")
	text := flag.Float64("text", textShare, "share of the reports with text beyond plain ASCII and an unknown field")
	lenient := flag.Bool("lenient", false, "every body has trailing commas and raw line breaks")
	flag.Parse()
	if *urls == "" || *reports < 1 || *connections < 1 {
		flag.Usage()
		os.Exit(2)
	}
	// One thread costs less than two that look for work; the schedule has its own.
	runtime.GOMAXPROCS(1)
	if *rate > 0 {
		runtime.GOMAXPROCS(2)
	}
	debug.SetGCPercent(-1)
	workers := make([]*worker, *connections)
	targets := strings.Split(*urls, ",")
	for index := range workers {
		made, err := newWorker(targets[index%len(targets)], index, *reports, style{*text, *lenient}, *seed)
		if err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(2)
		}
		workers[index] = made
	}
	result := run(workers, *rate, *warm, *seconds)
	json.NewEncoder(os.Stdout).Encode(result)
}

func newWorker(target string, index, reports int, of style, seed uint64) (*worker, error) {
	to, err := url.Parse(target)
	if err != nil || to.Scheme != "http" {
		return nil, fmt.Errorf("%q is no http URL", target)
	}
	address := to.Host
	if to.Port() == "" {
		address = net.JoinHostPort(to.Hostname(), "80")
	}
	chance := rand.New(rand.NewPCG(seed, uint64(index)))
	runDigits := fmt.Sprintf("%0*d", runDigits, 700_000_000_000+seed%100_000_000_000)
	made := &worker{
		connection: connection{address: address, buffer: make([]byte, 16<<10)},
		next:       uint64(index) * 1_000_000_000,
		reports:    reports,
		other:      map[string]int{},
	}
	for range max(1, distinctReports/reports) {
		made.requests = append(made.requests, newRequest(to.Host, to.RequestURI(), reports, runDigits, of, chance))
	}
	return made, nil
}

func run(workers []*worker, rate, warm, seconds float64) Result {
	began := time.Now()
	count := began.Add(time.Duration(warm * float64(time.Second)))
	end := count.Add(time.Duration(seconds * float64(time.Second)))
	var due <-chan time.Time
	if rate > 0 {
		due = schedule(rate, began, end)
	}
	used := cpuSeconds()
	var all sync.WaitGroup
	for _, each := range workers {
		all.Go(func() {
			defer each.close()
			if rate > 0 {
				each.openLoop(due, count, end)
			} else {
				each.closedLoop(count, end)
			}
		})
	}
	all.Wait()
	return sum(workers, count, cpuSeconds()-used)
}

func sum(workers []*worker, count time.Time, cpu float64) Result {
	result := Result{Other: map[string]int{}, CPU: cpu}
	last := count
	var latencies []uint32
	for _, each := range workers {
		latencies = append(latencies, each.latencies...)
		result.Acknowledged += each.acknowledged
		result.Unsent += each.other["unsent"]
		delete(each.other, "unsent")
		for what, times := range each.other {
			result.Other[what] += times
			result.Requests += times
		}
		if each.last.After(last) {
			last = each.last
		}
	}
	slices.Sort(latencies)
	result.OK = len(latencies)
	result.Requests += result.OK
	result.ReportsOK = result.OK * workers[0].reports
	result.Seconds = last.Sub(count).Seconds()
	result.P50, result.P99, result.P999 = percentile(latencies, 0.5), percentile(latencies, 0.99), percentile(latencies, 0.999)
	result.Max = percentile(latencies, 1)
	return result
}

// percentile is the least latency that this share of the answers did not exceed, in milliseconds; 0 where there are none.
func percentile(sorted []uint32, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(share*float64(len(sorted)) + 0.999999)
	return float64(sorted[min(max(rank, 1), len(sorted))-1]) / 1000
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}
