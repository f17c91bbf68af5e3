// Command collector is an OpenTelemetry Collector of three parts: a webhook receiver, the batching that is asked for, and the
// community's own kafkaexporter. It takes --port, --bootstrap and --topic, and --sync.
//
// The receiver does what the community's webhookeventreceiver does (body -> one log record -> next in the pipeline -> 200, or 500
// if that one returned an error); that module can't be had as a Go module everywhere, and this is its whole work.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/kafkaexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

const success = `{"code":0,"msg":"Success"}`

var webhook = component.MustNewType("webhook")

type config struct {
	Endpoint string `mapstructure:"endpoint"`
}

type webhookReceiver struct {
	endpoint string
	next     consumer.Logs
	server   *http.Server
}

func (r *webhookReceiver) Start(_ context.Context, _ component.Host) error {
	listener, err := net.Listen("tcp", r.endpoint)
	if err != nil {
		return err
	}
	r.server = &http.Server{Handler: http.HandlerFunc(r.handle)}
	go func() {
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	return nil
}

func (r *webhookReceiver) Shutdown(ctx context.Context) error {
	if r.server == nil {
		return nil
	}
	return r.server.Shutdown(ctx)
}

func (r *webhookReceiver) handle(w http.ResponseWriter, request *http.Request) {
	var body bytes.Buffer
	if request.ContentLength > 0 {
		body.Grow(int(min(request.ContentLength, 1<<22)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(request.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	logs := plog.NewLogs()
	record := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	// webhookeventreceiver makes it a string, which the exporter writes as a JSON string, quotes escaped; bytes go as they are.
	record.Body().SetEmptyBytes().FromRaw(body.Bytes())
	if err := r.next.ConsumeLogs(request.Context(), logs); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(success))
}

func create(_ context.Context, _ receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	return &webhookReceiver{endpoint: cfg.(*config).Endpoint, next: next}, nil
}

func factories() (otelcol.Factories, error) {
	webhooks := receiver.NewFactory(
		webhook,
		func() component.Config { return &config{} },
		receiver.WithLogs(create, component.StabilityLevelStable),
	)
	kafka := kafkaexporter.NewFactory()
	return otelcol.Factories{
		Receivers: map[component.Type]receiver.Factory{webhook: webhooks},
		Exporters: map[component.Type]exporter.Factory{kafka.Type(): kafka},
		Telemetry: otelconftelemetry.NewFactory(),
	}, nil
}

// The exporter's queue is on by default, so that a request is answered before Kafka has it. --sync turns it off, and the repetitions
// with it, which would outlast the provider's patience.
const settings = `yaml:
receivers:
  webhook: {endpoint: "127.0.0.1:%d"}
exporters:
  kafka:
    brokers: ["%s"]
    logs: {topic: "%s", encoding: raw}
    producer: {required_acks: -1, compression: lz4}
    sending_queue: {enabled: %t}
    retry_on_failure: {enabled: %t}
    timeout: 2500ms
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines:
    logs: {receivers: [webhook], exporters: [kafka]}
`

func main() {
	port := flag.Int("port", 8080, "where to listen, on 127.0.0.1")
	bootstrap := flag.String("bootstrap", "127.0.0.1:9092", "a broker")
	topic := flag.String("topic", "chatapp.status.v1", "where records go")
	sync := flag.Bool("sync", false, "answer after Kafka has it: no sending queue")
	flag.Parse()
	command := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Version: "0"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				URIs:              []string{fmt.Sprintf(settings, *port, *bootstrap, *topic, !*sync, !*sync)},
				DefaultScheme:     "yaml",
				ProviderFactories: []confmap.ProviderFactory{yamlprovider.NewFactory()},
			},
		},
	})
	command.SetArgs([]string{})
	if err := command.Execute(); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}
