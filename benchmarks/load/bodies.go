package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Digits of a MessageId: twelve of the run, twelve counted.
const idDigits, runDigits = 24, 12

// What fails and how often, as bridge/lab/simulate has it.
var failures = []struct {
	code, text string
	weight     int
}{
	{"131026", "Receiver is incapable of receiving this message(Message Undeliverable.)", 50},
	{"131049", "This message was not delivered to maintain healthy ecosystem engagement.", 20},
	{"131047", "Re-engagement message. More than 24 hours have passed since the last reply.", 8},
	{"131050", "User has stopped marketing messages from this business.", 6},
	{"130429", "Rate limit hit.", 6},
	{"131042", "Business eligibility payment issue.", 2},
	{"132000", "Number of parameters does not match the expected number of params.", 2},
	{"131053", "Media upload error.", 2},
	{"131000", "Something went wrong.", 2},
	{"368", "Temporarily blocked for policies violations.", 1},
	{"SRVC_0107", "The channel refused the message.", 1},
}

// A request ready to be sent, but for the counted digits of each report's ids.
type request struct {
	bytes []byte
	// Where the counted digits of each report stand; two places where TaskId repeats MessageId.
	places [][]int
}

// number makes the ids of every report new; it returns the next number that is free.
func (of *request) number(next uint64) uint64 {
	for _, places := range of.places {
		for _, place := range places {
			rest := next
			for at := place + idDigits - runDigits - 1; at >= place; at-- {
				of.bytes[at] = byte('0' + rest%10)
				rest /= 10
			}
		}
		next++
	}
	return next
}

// newRequest makes a POST of so many reports.
func newRequest(host, path string, reports int, run string, of style, chance *rand.Rand) *request {
	var body bytes.Buffer
	places := make([][]int, reports)
	for index := range reports {
		body.WriteByte("[,"[min(index, 1)])
		began := body.Len()
		report(&body, run, of, chance)
		text := body.Bytes()[began:]
		for from := 0; ; {
			found := bytes.Index(text[from:], []byte(run))
			if found < 0 {
				break
			}
			places[index] = append(places[index], began+from+found+runDigits)
			from += found + runDigits
		}
	}
	if of.lenient {
		body.WriteByte(',')
	}
	body.WriteByte(']')
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, host, body.Len())
	for _, each := range places {
		for index := range each {
			each[index] += len(head)
		}
	}
	return &request{append([]byte(head), body.Bytes()...), places}
}

// What a report with text has beside the fields of all: characters beyond ASCII as they are, escapes, and a field that nobody
// knows. As bridge/lab/simulate has it.
const (
	text = `,"UserName":"Renée 李雷 😀","StatusDescription":"Message \"\u4e2d\" accepted \/ queued\nby the channel"` +
		`,"Extension":{"campaign":"été","tags":["新",1]}`
	textShare = 1.0 / 3
)

// How the bodies are written.
type style struct {
	// The share of the reports that have text.
	text float64
	// Whether a body needs leniency: commas that trail in each report and behind the last, a raw line break in each report.
	lenient bool
}

// report writes one as the provider's page shows it, of the usual mix: 36 % Sent, 34 % Delivered, 28 % Read, 2 % Failed.
// Every telephone number is fictitious: +1 NPA 555-01xx is reserved for that.
func report(to *bytes.Buffer, run string, of style, chance *rand.Rand) {
	id := run + "000000000000"
	task := id
	if chance.IntN(2) == 0 {
		task = fmt.Sprintf("task-%d", chance.IntN(10_000))
	}
	fmt.Fprintf(to, `{"MessageId":"%s","TaskId":"%s","From":"%s","OriginPhoneNumber":"%s","Timestamp":%d,`,
		id, task, telephone(chance.IntN(8)), telephone(50+chance.IntN(8)), 1_691_043_638_000+chance.Int64N(100_000_000))
	if chance.IntN(10) < 7 {
		fmt.Fprintf(to, `"MsgFrameType":"template","Type":"%s","TemplateCode":"820561547132813184","TemplateName":"simulated_offer","Language":"id",`,
			pick(chance, "TEMPLATE", "none", "image"))
	} else {
		fmt.Fprintf(to, `"MsgFrameType":"message","Type":"%s","ConversationId":"7222%012d","ConversationType":"%s",`,
			pick(chance, "INTERACTIVE", "none", "document"), chance.IntN(1_000_000_000),
			pick(chance, "service", "utility", "marketing", "authentication"))
	}
	drawn := chance.IntN(100)
	switch {
	case drawn < 36:
		to.WriteString(`"Status":"Sent"`)
	case drawn < 70:
		to.WriteString(`"Status":"Delivered"`)
	case drawn < 98:
		to.WriteString(`"Status":"Read"`)
	default:
		why := failures[0]
		for left, index := chance.IntN(100), 0; left >= 0; index++ {
			why = failures[index]
			left -= why.weight
		}
		fmt.Fprintf(to, `"Status":"Failed","ErrorCode":"%s","ErrorDescription":"%s:%s"`, why.code, why.code, why.text)
	}
	switch hasText := chance.Float64() < of.text; {
	case hasText && of.lenient:
		to.WriteString(strings.Replace(text, `\n`, "\n", 1))
	case hasText:
		to.WriteString(text)
	case of.lenient:
		to.WriteString(",\"StatusDescription\":\"accepted\nby the channel\"")
	}
	fmt.Fprintf(to, `,"To":"%s"`, telephone(chance.IntN(60_000)))
	if of.lenient {
		to.WriteByte(',')
	}
	to.WriteByte('}')
}

func telephone(n int) string {
	return fmt.Sprintf("1%d55501%02d", 200+n/100%600, n%100)
}

func pick(chance *rand.Rand, of ...string) string {
	return of[chance.IntN(len(of))]
}
