package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

func TestEveryReportHasAnIdOfItsOwnAndTaskIdFollows(t *testing.T) {
	of := newRequest("h", "/p", 50, "700000000001", style{text: textShare}, rand.New(rand.NewPCG(1, 2)))
	seen := map[string]bool{}
	next := uint64(999_999_999_990)
	for range 2 {
		next = of.number(next - 1_000_000) // digits carry, and fewer come after more
		body := of.bytes[bytes.Index(of.bytes, headEnd)+4:]
		var reports []struct{ MessageId, TaskId, Status, To string }
		if err := json.Unmarshal(body, &reports); err != nil {
			t.Fatal(err)
		}
		for _, each := range reports {
			if len(each.MessageId) != idDigits || seen[each.MessageId] || each.Status == "" || each.To == "" {
				t.Fatalf("%+v", each)
			}
			if each.TaskId[:4] != "task" && each.TaskId != each.MessageId {
				t.Fatalf("%+v", each)
			}
			seen[each.MessageId] = true
		}
		if size := len(body) / len(reports); size < 250 || size > 500 {
			t.Fatalf("%d bytes a report", size)
		}
	}
	if len(seen) != 100 {
		t.Fatalf("%d ids", len(seen))
	}
}

func TestTextIsInTheShareOfReportsThatWasAskedFor(t *testing.T) {
	for share, want := range map[float64][2]int{0: {0, 0}, 1: {300, 300}, textShare: {70, 130}} {
		of := newRequest("h", "/p", 300, "700000000001", style{text: share}, rand.New(rand.NewPCG(1, 2)))
		body := of.bytes[bytes.Index(of.bytes, headEnd)+4:]
		var reports []map[string]any
		if err := json.Unmarshal(body, &reports); err != nil {
			t.Fatal(err)
		}
		found := bytes.Count(body, []byte(`"Extension"`))
		if found < want[0] || found > want[1] {
			t.Errorf("share %v: %d of 300", share, found)
		}
	}
}

func TestALenientBodyIsNoJSONUntilItIsMended(t *testing.T) {
	of := newRequest("h", "/p", 2, "700000000001", style{lenient: true}, rand.New(rand.NewPCG(1, 2)))
	body := of.bytes[bytes.Index(of.bytes, headEnd)+4:]
	if json.Valid(body) || bytes.Count(body, []byte(",}")) != 2 || !bytes.HasSuffix(body, []byte("},]")) {
		t.Fatalf("%s", body)
	}
	for _, each := range [][2]string{{",}", "}"}, {",]", "]"}, {"\n", `\n`}} {
		body = bytes.ReplaceAll(body, []byte(each[0]), []byte(each[1]))
	}
	if !json.Valid(body) {
		t.Fatalf("%s", body)
	}
}

func TestPercentileIsOfWhatWasSeen(t *testing.T) {
	sorted := make([]uint32, 1000)
	for index := range sorted {
		sorted[index] = uint32(index+1) * 1000
	}
	for share, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := percentile(sorted, share); got != want {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if percentile(nil, 0.5) != 0 {
		t.Error("of none")
	}
}

// The first answer takes 300 ms; with one connection all that was due meanwhile is late, and has to count so.
func TestLatencyCountsFromTheSchedule(t *testing.T) {
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { time.Sleep(300 * time.Millisecond) })
		w.Write([]byte("{}"))
	}))
	defer server.Close()
	one, err := newWorker(server.URL+"/x", 0, 3, style{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	result := run([]*worker{one}, 100, 0, 0.5)
	if result.OK != 50 || result.ReportsOK != 150 || result.Acknowledged != 150 || result.P50 < 5 {
		t.Fatalf("%+v", result)
	}
}

func TestOtherAnswersAndBrokenConnectionsAreTold(t *testing.T) {
	turn := 0
	var lock sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		turn++
		switch turn % 3 {
		case 0:
			w.Header().Set("Connection", "close")
			w.WriteHeader(503)
		case 1:
			w.(http.Flusher).Flush() // in chunks
			w.Write([]byte("yes"))
		default:
			socket, _, _ := w.(http.Hijacker).Hijack()
			socket.(*net.TCPConn).SetLinger(0)
			socket.Close()
		}
	}))
	defer server.Close()
	one, _ := newWorker(server.URL, 0, 1, style{}, 1)
	result := run([]*worker{one}, 30, 0, 1)
	if result.OK != 10 || result.Other["503"] != 10 || result.Other["error"] != 10 || result.Requests != 30 {
		t.Fatalf("%+v", result)
	}
}
