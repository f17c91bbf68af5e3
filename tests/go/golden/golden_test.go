package golden

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	root     = "../../.."
	schemaID = 7
)

type record struct {
	Topic     string
	EventIDOf []string `json:"event_id_of"`
	Value     json.RawMessage
	Avro      []string
	Framed    map[string]any
}

// Every case of tests/golden, a subtest each.
func TestGolden(t *testing.T) {
	schema, err := os.ReadFile(filepath.Join(root, "avro/releases/1.avsc"))
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := NewDecoder(string(schema), schemaID)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(root, "tests/golden/*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var read struct{ Records []record }
			if err := json.Unmarshal(text, &read); err != nil {
				t.Fatal(err)
			}
			for place, each := range read.Records {
				if each.Topic == "status" {
					check(t, place, decoder, each)
				}
			}
		})
	}
}

// JSON, the datum and both frames are the same event, and the JSON holds the event's fields and no others.
func check(t *testing.T, place int, decoder *Decoder, each record) {
	t.Helper()
	expected, err := decoder.Decode(each.Value)
	if err != nil {
		t.Fatalf("record %d: JSON: %v", place, err)
	}
	var members, again any
	written, _ := json.Marshal(expected)
	if json.Unmarshal(each.Value, &members) != nil || json.Unmarshal(written, &again) != nil || !reflect.DeepEqual(members, again) {
		t.Errorf("record %d: the event holds %s and the JSON %s", place, written, each.Value)
	}
	datum := bytesOf(t, each.Avro...)
	frame := binary.BigEndian.AppendUint32([]byte{0}, schemaID)
	found, err := decoder.Decode(append(frame, datum...))
	if err != nil || !reflect.DeepEqual(found, expected) {
		t.Errorf("record %d: Avro is %+v (%v), JSON %+v", place, found, err, expected)
	}
	for name, value := range each.Framed {
		if text, isText := value.(string); isText {
			whole := bytesOf(t, text)
			found, err := decoder.Decode(whole)
			if err != nil || !reflect.DeepEqual(found, expected) || !bytes.HasSuffix(whole, datum) {
				t.Errorf("record %d: %s is %+v (%v), JSON %+v", place, name, found, err, expected)
			}
		}
	}
	if id := EventID(each.EventIDOf); id != expected.EventID {
		t.Errorf("record %d: the event id is %s by the formula, %s in the value", place, id, expected.EventID)
	}
}

// Hex with blanks, and a comment behind #.
func bytesOf(t *testing.T, lines ...string) (found []byte) {
	t.Helper()
	for _, line := range lines {
		text, _, _ := strings.Cut(line, "#")
		part, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, part...)
	}
	return found
}
