package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// What of a report's event is derived; fields.go has the fields. The bridge's tolerant way is not rebuilt here; a body that
// needs it is refused, and the comparison has none.
type made struct {
	id               [32]byte
	status           *status
	code             string
	meaning          meaning
	source, frame    string
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
	for _, each := range []struct {
		symbol string
		rank   byte
	}{{"SENT", '1'}, {"DELIVERED", '2'}, {"READ", '3'}, {"FAILED", '0'}, {"DELETED", '0'}, {"SUBSCRIBED", '0'}, {"UNSUBSCRIBED", '0'}} {
		folded := strings.ToLower(each.symbol)
		of := &status{each.symbol, folded, each.rank, []byte("chatapp.status." + folded)}
		statuses[folded], statuses[each.symbol], statuses[each.symbol[:1]+folded[1:]] = of, of, of
	}
	for _, row := range [][3]string{
		{"131026", "UNDELIVERABLE", "NO"},
		{"131047", "RE_ENGAGEMENT", "NO"},
		{"131049", "ECOSYSTEM_LIMIT", "LATER"},
		{"131050", "OPT_OUT", "NO"},
		{"131048", "SPAM_LIMIT", "LATER"},
		{"131056 130429 4 80007", "RATE_LIMIT", "LATER"},
		{"131042", "PAYMENT", "NO"},
		{"368 131031", "POLICY", "NO"},
		{"132000 132001 132005 132007 132012 132016", "TEMPLATE", "NO"},
		{"132015", "TEMPLATE", "LATER"},
		{"131051 131052 131053", "MEDIA", "NO"},
		{"3 10 131005 131030", "PERMISSION", "NO"},
		{"190 131045 33 137000", "ACCOUNT", "NO"},
		{"131043", "EXPIRED", "NO"},
		{"1 2 131000 131016 133004", "TRANSIENT", "LATER"},
	} {
		for _, code := range strings.Fields(row[0]) {
			meanings[code] = meaning{row[1], row[2]}
		}
	}
	for code := 200; code < 300; code++ {
		meanings[strconv.Itoa(code)] = meaning{"PERMISSION", "NO"}
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
