package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// What of a report's event is derived; fields.go has the fields, codes.go the statuses and the error codes. The bridge's tolerant way is not rebuilt here; a body that
// needs it is refused, and the comparison has none.
type made struct {
	id               [32]byte
	status           *status
	code             string
	meaning          meaning
	source, frame    string
	extras           string
	sent, receivedAt int64
}

type status struct {
	symbol, folded string
	rank           byte
	ceType         []byte
}

type meaning struct{ category, retry string }

var (
	statuses = map[string]*status{}
	unknown  = &status{"UNKNOWN", "", '0', []byte("chatapp.status.unknown")}
	meanings = map[string]meaning{}
	none     = meaning{"NONE", "NONE"}
	notKnown = meaning{"UNKNOWN", "UNKNOWN"}
	leading  = regexp.MustCompile(`^\s*(?:\(#([0-9]+)\)|([0-9]+)(?:[:\x{ff1a}\s]|$))`)
	noErrors = map[string]bool{
		"": true, "0": true, "ok": true, "success": true, "00000": true, "delivered": true, "delivrd": true, "null": true,
	}
)

func init() {
	for _, each := range wireStatuses {
		of := &status{each.symbol, each.wire, each.rank, []byte("chatapp.status." + strings.ToLower(each.symbol))}
		statuses[each.wire], statuses[strings.ToUpper(each.wire)], statuses[strings.ToUpper(each.wire[:1])+each.wire[1:]] = of, of, of
	}
	for _, row := range codes {
		for code := range strings.FieldsSeq(row.codes) {
			meanings[code] = row.meaning
		}
	}
}

// present is the text, empty where it is blank: that means absent.
func present(text string) string {
	if text == "" || text[0] > ' ' && text[0] < 0x80 || strings.TrimSpace(text) != "" {
		return text
	}
	return ""
}

func folded(text string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(text)), "-", "_")
}

// plain tidies the report in place; whether it can be published.
func (r *report) plain() bool {
	for _, text := range r.texts() {
		*text = present(*text)
	}
	r.aliases()
	r.Status = strings.TrimSpace(r.Status)
	return r.MessageID != "" && r.Status != "" && isTime(r.Timestamp) && isTime(r.ConversationExpirationTime)
}

func isTime(at *int64) bool {
	if at != nil && *at >= 1e9 && *at < 1e10 {
		*at *= 1000
	}
	return at == nil || *at >= 1e12 && *at < 1e13
}

// event appends a report's JSON value and its id; the value is what stands before the last 32 bytes.
func (r *report) event(to []byte, receivedAt int64) ([]byte, *status) {
	of := statuses[r.Status]
	if of == nil {
		if of = statuses[strings.ToLower(r.Status)]; of == nil {
			of = unknown
		}
	}
	made := made{status: of, receivedAt: receivedAt, sent: receivedAt, source: "RECEIVED", frame: folded(r.MsgFrameType)}
	if r.extras != nil {
		made.extras = string(append(r.extras, '}'))
	}
	made.code, made.meaning = r.failure(of)
	made.id = eventID(r.MessageID, or(r.To, r.UserID), r.Status, of, strings.TrimSpace(r.ErrorCode))
	if r.Timestamp != nil {
		made.sent, made.source = *r.Timestamp, "PROVIDER"
	}
	if made.frame == "" && r.TemplateCode != "" {
		made.frame = "template"
	}
	return append(r.members(to, &made), made.id[:]...), of
}

func (r *report) failure(of *status) (string, meaning) {
	code := r.ErrorCode
	if noErrors[strings.ToLower(strings.TrimSpace(code))] {
		code = ""
	}
	failed := of.symbol == "FAILED"
	if code == "" && failed && r.ErrorDescription != "" {
		if found := leading.FindStringSubmatch(r.ErrorDescription); found != nil {
			if _, known := meanings[or(found[1], found[2])]; known {
				code = or(found[1], found[2])
			}
		}
	}
	switch means, known := meanings[strings.TrimSpace(code)]; {
	case !failed && (of != unknown || code == ""):
		return code, none
	case known:
		return code, means
	default:
		return code, notKnown
	}
}

func eventID(messageID, recipient, provider string, of *status, code string) (id [32]byte) {
	state := of.folded
	if of == unknown {
		state = strings.ToLower(provider)
	}
	var room [256]byte
	joined := room[:0]
	for _, each := range [4]string{messageID, recipient, state, code} {
		joined = append(binary.BigEndian.AppendUint32(joined, uint32(len(each))), each...)
	}
	digest := sha256.Sum256(joined)
	hex.Encode(id[:], digest[:16])
	return id
}

func or(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

const digits = "0123456789abcdef"

// number appends a time; null where it is absent.
func number(to []byte, value *int64) []byte {
	if value == nil {
		return append(to, "null"...)
	}
	return strconv.AppendInt(to, *value, 10)
}

// text appends a text; null where it is absent. Escaped as the bridge does.
func text(to []byte, value string) []byte {
	if value == "" {
		return append(to, "null"...)
	}
	return quoted(to, value)
}

// quoted appends a text that is not absent.
func quoted(to []byte, value string) []byte {
	to = append(to, '"')
	from := 0
	for index := 0; index < len(value); index++ {
		char := value[index]
		if char >= ' ' && char != '"' && char != '\\' {
			continue
		}
		to = append(append(to, value[from:index]...), '\\')
		from = index + 1
		switch char {
		case '"', '\\':
			to = append(to, char)
		case '\n':
			to = append(to, 'n')
		case '\r':
			to = append(to, 'r')
		case '\t':
			to = append(to, 't')
		case '\b':
			to = append(to, 'b')
		case '\f':
			to = append(to, 'f')
		default:
			to = append(to, 'u', '0', '0', digits[char>>4], digits[char&15])
		}
	}
	return append(append(to, value[from:]...), '"')
}
