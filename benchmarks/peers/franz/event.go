package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// A report as documented: strings are strings, times are numbers. The bridge's tolerant way is not rebuilt here; a body that
// needs it is refused, and the comparison has none.
type report struct {
	MessageID          string `json:"MessageId"`
	From               string
	To                 string
	Timestamp          *int64
	Status             string
	StatusDescription  string
	ErrorCode          string
	ErrorDescription   string
	ConversationType   string
	ConversationID     string `json:"ConversationId"`
	ConversationExpiry *int64 `json:"ConversationExpirationTime"`
	MsgFrameType       string
	Type               string
	TaskID             string `json:"TaskId"`
	OriginPhoneNumber  string
	TemplateCode       string
	TemplateName       string
	Language           string
	FromUserID         string `json:"FromUserId"`
	FromParentUserID   string `json:"FromParentUserId"`
	FromUserName       string
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
	leading  = regexp.MustCompile(`^([\pL\pN_]+):`)
)

func init() {
	for _, each := range []struct {
		symbol string
		rank   byte
	}{{"SENT", '1'}, {"DELIVERED", '2'}, {"READ", '3'}, {"FAILED", '0'}, {"DELETED", '0'}} {
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
	for _, text := range []*string{
		&r.MessageID, &r.From, &r.To, &r.Status, &r.StatusDescription, &r.ErrorCode, &r.ErrorDescription, &r.ConversationID, &r.TaskID,
		&r.OriginPhoneNumber, &r.TemplateCode, &r.TemplateName, &r.Language, &r.FromUserID, &r.FromParentUserID, &r.FromUserName,
	} {
		*text = present(*text)
	}
	r.Status = strings.TrimSpace(r.Status)
	return r.MessageID != "" && r.Status != "" && isTime(r.Timestamp) && isTime(r.ConversationExpiry)
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
	code, means := r.failure(of)
	id := eventID(r.MessageID, or(r.To, r.FromUserID), r.Status, of, code)
	to = append(append(append(to, `{"event_id":"`...), id[:]...), '"')
	to = text(to, "message_id", r.MessageID)
	to = text(to, "task_id", or(r.TaskID, r.MessageID))
	to = append(to, `,"task_id_defaulted":`...)
	to = strconv.AppendBool(to, r.TaskID == "")
	to = text(to, "sender", r.From)
	to = text(to, "recipient", r.To)
	to = text(to, "origin_phone_number", r.OriginPhoneNumber)
	to = text(to, "user_id", r.FromUserID)
	to = text(to, "parent_user_id", r.FromParentUserID)
	to = text(to, "user_name", r.FromUserName)
	to = text(to, "status", of.symbol)
	to = text(to, "provider_status", r.Status)
	to = append(append(to, `,"status_rank":`...), of.rank)
	to = text(to, "status_description", r.StatusDescription)
	sent, source := receivedAt, "RECEIVED"
	if r.Timestamp != nil {
		sent, source = *r.Timestamp, "PROVIDER"
	}
	to = strconv.AppendInt(append(to, `,"message_time":`...), sent, 10)
	to = text(to, "message_time_source", source)
	to = strconv.AppendInt(append(to, `,"received_at":`...), receivedAt, 10)
	to = text(to, "error_code", code)
	to = text(to, "error_description", r.ErrorDescription)
	to = text(to, "error_category", means.category)
	to = text(to, "error_retry", means.retry)
	to = text(to, "conversation_id", r.ConversationID)
	to = text(to, "conversation_type", folded(r.ConversationType))
	to = append(to, `,"conversation_expires_at":`...)
	if r.ConversationExpiry == nil {
		to = append(to, "null"...)
	} else {
		to = strconv.AppendInt(to, *r.ConversationExpiry, 10)
	}
	frame := folded(r.MsgFrameType)
	if frame == "" && r.TemplateCode != "" {
		frame = "template"
	}
	to = text(to, "message_frame_type", frame)
	to = text(to, "content_type", folded(r.Type))
	to = text(to, "template_code", r.TemplateCode)
	to = text(to, "template_name", r.TemplateName)
	to = text(to, "template_language", r.Language)
	to = append(to, `,"extras":null}`...)
	return append(to, id[:]...), of
}

func (r *report) failure(of *status) (string, meaning) {
	code := r.ErrorCode
	if code == "" && r.ErrorDescription != "" {
		if found := leading.FindStringSubmatch(r.ErrorDescription); found != nil {
			code = found[1]
		}
	}
	if code == "" && of.symbol != "FAILED" {
		return "", none
	}
	switch trimmed := strings.TrimSpace(code); {
	case code == "" || trimmed == "0" || strings.EqualFold(trimmed, "ok"):
		if of.symbol == "FAILED" {
			return "", notKnown
		}
		return "", none
	default:
		if means, known := meanings[trimmed]; known {
			return code, means
		}
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

// text appends a member; null where it is absent. Escaped as the bridge does.
func text(to []byte, name, value string) []byte {
	to = append(append(append(to, `,"`...), name...), `":`...)
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
