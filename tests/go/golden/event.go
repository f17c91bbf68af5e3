// Package golden is a consumer of the status events in Go, as a team would write one, and its test reads every case of tests/golden.
package golden

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/twmb/avro"
)

// Event is one status report. A pointer is nil if the field did not arrive; times are milliseconds since the epoch.
type Event struct {
	EventID               string  `avro:"event_id" json:"event_id"`
	MessageID             string  `avro:"message_id" json:"message_id"`
	TaskID                string  `avro:"task_id" json:"task_id"`
	TaskIDDefaulted       bool    `avro:"task_id_defaulted" json:"task_id_defaulted"`
	Sender                *string `avro:"sender" json:"sender"`
	Recipient             *string `avro:"recipient" json:"recipient"`
	OriginPhoneNumber     *string `avro:"origin_phone_number" json:"origin_phone_number"`
	UserID                *string `avro:"user_id" json:"user_id"`
	ParentUserID          *string `avro:"parent_user_id" json:"parent_user_id"`
	UserName              *string `avro:"user_name" json:"user_name"`
	Status                string  `avro:"status" json:"status"`
	ProviderStatus        string  `avro:"provider_status" json:"provider_status"`
	StatusRank            int32   `avro:"status_rank" json:"status_rank"`
	StatusDescription     *string `avro:"status_description" json:"status_description"`
	MessageTime           int64   `avro:"message_time" json:"message_time"`
	MessageTimeSource     string  `avro:"message_time_source" json:"message_time_source"`
	ReceivedAt            int64   `avro:"received_at" json:"received_at"`
	ErrorCode             *string `avro:"error_code" json:"error_code"`
	ErrorDescription      *string `avro:"error_description" json:"error_description"`
	ErrorCategory         string  `avro:"error_category" json:"error_category"`
	ErrorRetry            string  `avro:"error_retry" json:"error_retry"`
	ConversationID        *string `avro:"conversation_id" json:"conversation_id"`
	ConversationType      *string `avro:"conversation_type" json:"conversation_type"`
	ConversationExpiresAt *int64  `avro:"conversation_expires_at" json:"conversation_expires_at"`
	MessageFrameType      *string `avro:"message_frame_type" json:"message_frame_type"`
	ContentType           *string `avro:"content_type" json:"content_type"`
	TemplateCode          *string `avro:"template_code" json:"template_code"`
	TemplateName          *string `avro:"template_name" json:"template_name"`
	TemplateLanguage      *string `avro:"template_language" json:"template_language"`
	Extras                *string `avro:"extras" json:"extras"`
}

// Decoder reads the values of the status topic, in JSON and in both frames of Avro. The registry's ids name one schema here; a program
// with a registry asks it.
type Decoder struct {
	schema *avro.Schema
	id     uint32
}

// NewDecoder takes the text of a schema, and the id that the registry has for it.
func NewDecoder(schema string, id uint32) (*Decoder, error) {
	parsed, err := avro.Parse(schema)
	if err != nil {
		return nil, err
	}
	return &Decoder{parsed, id}, nil
}

// Decode tells by the first byte how a value is written.
func (d *Decoder) Decode(value []byte) (event Event, err error) {
	switch {
	case len(value) > 0 && value[0] == '{':
		return event, json.Unmarshal(value, &event)
	case len(value) > 5 && value[0] == 0:
		if id := binary.BigEndian.Uint32(value[1:5]); id != d.id {
			return event, fmt.Errorf("schema %d is not known", id)
		}
		return d.Datum(value[5:])
	case bytes.HasPrefix(value, []byte{0xc3, 0x01}):
		rest, err := d.schema.DecodeSingleObject(value, &event)
		return event, whole(rest, err)
	}
	return event, fmt.Errorf("the value is neither JSON nor Avro")
}

// Datum reads Avro without a frame.
func (d *Decoder) Datum(datum []byte) (event Event, err error) {
	rest, err := d.schema.Decode(datum, &event)
	return event, whole(rest, err)
}

func whole(rest []byte, err error) error {
	if err == nil && len(rest) > 0 {
		return fmt.Errorf("%d bytes follow the event", len(rest))
	}
	return err
}

// EventID is the id of a fact, out of MessageId, recipient, status and error code as avro/CONTRACT.md has them.
func EventID(texts []string) string {
	hash := sha256.New()
	for _, text := range texts {
		_ = binary.Write(hash, binary.BigEndian, uint32(len(text)))
		hash.Write([]byte(text))
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}
