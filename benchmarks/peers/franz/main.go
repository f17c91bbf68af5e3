// Command franz takes callbacks and publishes their reports with franz-go: what a good Go service for the same job would be.
//
// A callback is answered 200 when Kafka acknowledged every report of it. There is no disk: while Kafka is away callbacks wait,
// until the provider gives up.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/goccy/go-json"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The provider waits for 3 s.
const maxBody, deadline = 8 << 20, 2500 * time.Millisecond

var (
	success  = []byte(`{"code":0,"msg":"Success"}`)
	errPlain = errors.New("not the reports of the documentation")
	errLate  = errors.New("not acknowledged in time")
)

type service struct {
	client    *kgo.Client
	same      bool
	source    []byte
	instance  string
	callbacks atomic.Int64
}

func (s *service) ServeHTTP(to http.ResponseWriter, request *http.Request) {
	body, err := read(request)
	if err != nil {
		answer(to, 400, err)
		return
	}
	make := s.bytes
	if s.same {
		make = s.events
	}
	records, err := make(body)
	if err != nil {
		answer(to, 400, err)
		return
	}
	if err := s.publish(request.Context(), records); err != nil {
		log.Println("not published:", err)
		answer(to, 503, err)
		return
	}
	answer(to, 200, nil)
}

func read(request *http.Request) ([]byte, error) {
	if request.ContentLength < 0 || request.ContentLength > maxBody {
		return io.ReadAll(http.MaxBytesReader(nil, request.Body, maxBody))
	}
	body := make([]byte, request.ContentLength)
	_, err := io.ReadFull(request.Body, body)
	return body, err
}

func answer(to http.ResponseWriter, status int, err error) {
	to.Header()["Content-Type"] = []string{"application/json"}
	to.WriteHeader(status)
	if err == nil {
		to.Write(success)
		return
	}
	fmt.Fprintf(to, `{"code":%d,"msg":%q}`, status, err.Error())
}

// publish returns when every record is acknowledged, when all are resolved and one has failed, or when it takes too long.
func (s *service) publish(ctx context.Context, records []kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	var left atomic.Int64
	var failed atomic.Pointer[error]
	left.Store(int64(len(records)))
	done := make(chan struct{})
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
		if left.Add(-1) == 0 {
			close(done)
		}
	}
	for index := range records {
		s.client.Produce(ctx, &records[index], promise)
	}
	late := time.NewTimer(deadline)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		// What is on its way may arrive all the same; the provider pushes it again.
		return errLate
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// bytes makes a record of each report as it came, with its MessageId as the key.
func (s *service) bytes(body []byte) ([]kgo.Record, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, err
	}
	records := make([]kgo.Record, len(items))
	for index, item := range items {
		var of struct {
			MessageID string `json:"MessageId"`
		}
		if err := json.Unmarshal(item, &of); err != nil || of.MessageID == "" {
			return nil, errPlain
		}
		records[index].Key, records[index].Value = []byte(of.MessageID), item
	}
	return records, nil
}

// events makes the records that the bridge makes: value, key, headers, time.
func (s *service) events(body []byte) ([]kgo.Record, error) {
	reports, err := decode(body)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	receivedAt := now.UnixMilli()
	at := now.UTC().AppendFormat(make([]byte, 0, 24), "2006-01-02T15:04:05.000Z")
	callback := []byte(s.instance + "-" + strconv.FormatInt(s.callbacks.Add(1), 10))
	total := "/" + strconv.Itoa(len(reports))
	records := make([]kgo.Record, len(reports))
	headers := make([]kgo.RecordHeader, 9*len(reports))
	room := make([]byte, 0, 900*len(reports))
	for index := range reports {
		of := &reports[index]
		if !of.plain() {
			return nil, errPlain
		}
		began := len(room)
		var is *status
		room, is = of.event(room, receivedAt)
		ends := len(room)
		room = append(room, of.MessageID...)
		position := len(room)
		room = append(strconv.AppendInt(room, int64(index+1), 10), total...)
		key := room[ends:position:position]
		own := headers[9*index : 9*index+9 : 9*index+9]
		own[0] = kgo.RecordHeader{Key: "ce_specversion", Value: specversion}
		own[1] = kgo.RecordHeader{Key: "ce_id", Value: room[ends-32 : ends : ends]}
		own[2] = kgo.RecordHeader{Key: "ce_source", Value: s.source}
		own[3] = kgo.RecordHeader{Key: "ce_type", Value: is.ceType}
		own[4] = kgo.RecordHeader{Key: "ce_time", Value: at}
		own[5] = kgo.RecordHeader{Key: "ce_subject", Value: key}
		own[6] = kgo.RecordHeader{Key: "content-type", Value: contentType}
		own[7] = kgo.RecordHeader{Key: "bridge_callback", Value: callback}
		own[8] = kgo.RecordHeader{Key: "bridge_position", Value: room[position:len(room):len(room)]}
		records[index] = kgo.Record{Key: key, Value: room[began : ends-32 : ends-32], Headers: own, Timestamp: now}
	}
	return records, nil
}

var specversion, contentType = []byte("1.0"), []byte("application/json")

func compression(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("no such compression: %q", name)
}

func main() {
	log.SetFlags(0)
	port := flag.Int("port", 8080, "on 127.0.0.1")
	bootstrap := flag.String("bootstrap", "127.0.0.1:9092", "brokers, separated by commas")
	topic := flag.String("topic", "chatapp.status.v1", "of the events")
	work := flag.String("work", "same", "same: the bridge's records; bytes: each report as it came")
	linger := flag.Duration("linger", 0, "how long a record waits for others")
	compress := flag.String("compression", "snappy", "none, snappy, lz4 or zstd")
	gogc := flag.Int("gogc", 400, "as the environment's GOGC")
	flag.Parse()
	debug.SetGCPercent(*gogc)
	codec, err := compression(*compress)
	if err != nil || *work != "same" && *work != "bytes" {
		log.Fatalln("wrong -compression or -work:", err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*bootstrap, ",")...),
		kgo.DefaultProduceTopic(*topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // Java's murmur2
		kgo.ProducerLinger(*linger),
		kgo.ProducerBatchCompression(codec),
		kgo.MaxBufferedRecords(200_000),
		kgo.RecordDeliveryTimeout(deadline),
	)
	if err != nil {
		log.Fatalln(err)
	}
	if err := client.Ping(context.Background()); err != nil {
		log.Println("Kafka does not answer yet:", err)
	}
	serve(&http.Server{Handler: newService(client, *work == "same")}, *port)
	client.Close()
}

func newService(client *kgo.Client, same bool) *service {
	var id [8]byte
	rand.Read(id[:])
	return &service{client: client, same: same, source: []byte("/callbacks/chatapp/status"), instance: hex.EncodeToString(id[:])}
}

func serve(server *http.Server, port int) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatalln(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-stop
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(ctx)
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatalln(err)
	}
}
