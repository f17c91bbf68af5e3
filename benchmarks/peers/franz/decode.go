package main

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A decoder reads JSON in one pass over one copy of the body. Texts and values are parts of that copy; only a text with an
// escape is made anew. Whatever it does not take makes failed true, and the callback is refused.
type decoder struct {
	text   string
	at     int
	failed bool
}

// More nesting than any report has.
const maxDepth = 32

// decode reads a callback's body, an array of reports.
func decode(body []byte) ([]report, error) {
	d := decoder{text: string(body)}
	if !utf8.ValidString(d.text) {
		return nil, errPlain
	}
	reports := make([]report, 0, len(body)/256+1)
	if d.opens('[', ']') {
		for more := true; more; more = d.goesOn(']') {
			reports = append(reports, report{})
			d.report(&reports[len(reports)-1])
		}
	}
	d.next()
	if d.failed || d.at != len(d.text) {
		return nil, errPlain
	}
	return reports, nil
}

// next passes over white space; it returns what stands there, 0 at the end.
func (d *decoder) next() byte {
	for d.at < len(d.text) {
		switch char := d.text[d.at]; char {
		case ' ', '\n', '\r', '\t':
			d.at++
		default:
			return char
		}
	}
	return 0
}

func (d *decoder) expect(char byte) {
	if d.next() == char {
		d.at++
	} else {
		d.failed = true
	}
}

// opens passes over an opening bracket; whether anything comes before the closing one.
func (d *decoder) opens(opening, closing byte) bool {
	d.expect(opening)
	if !d.failed && d.next() == closing {
		d.at++
		return false
	}
	return !d.failed
}

// goesOn passes over a comma, and then there is more, or over the closing bracket.
func (d *decoder) goesOn(closing byte) bool {
	char := d.next()
	d.at++
	if char != ',' && char != closing {
		d.failed = true
	}
	return char == ',' && !d.failed
}

func (d *decoder) report(to *report) {
	if !d.opens('{', '}') {
		return
	}
	for more := true; more; more = d.goesOn('}') {
		name := d.string()
		d.expect(':')
		if d.failed {
			return
		}
		switch text, time := to.field(name); {
		case text != nil:
			*text = d.textValue()
		case time != nil:
			*time = d.timeValue()
		default:
			d.next()
			began := d.at
			d.skip(maxDepth)
			if !d.failed {
				to.unknown(name, d.text[began:d.at])
			}
		}
	}
}

// unknown keeps a member of a name that is not documented, its value as it came. Extras lacks its closing brace until the end.
func (r *report) unknown(name, value string) {
	if r.extras == nil {
		r.extras = make([]byte, 0, len(name)+len(value)+32)
	}
	r.extras = append(r.extras, "{,"[min(len(r.extras), 1)])
	r.extras = append(append(quoted(r.extras, name), ':'), value...)
}

// textValue is a string, or an integer's digits; empty of null.
func (d *decoder) textValue() string {
	switch char := d.next(); {
	case char == '"':
		return d.string()
	case char == 'n':
		d.literal("null")
		return ""
	default:
		began := d.at
		d.integer()
		return d.text[began:d.at]
	}
}

func (d *decoder) timeValue() *int64 {
	if d.next() == 'n' {
		d.literal("null")
		return nil
	}
	began := d.at
	d.integer()
	value, err := strconv.ParseInt(d.text[began:d.at], 10, 64)
	d.failed = d.failed || err != nil
	return &value
}

func (d *decoder) literal(word string) {
	if strings.HasPrefix(d.text[d.at:], word) {
		d.at += len(word)
	} else {
		d.failed = true
	}
}

func (d *decoder) digits() {
	began := d.at
	for d.at < len(d.text) && d.text[d.at]-'0' < 10 {
		d.at++
	}
	d.failed = d.failed || d.at == began
}

func (d *decoder) integer() {
	if d.at < len(d.text) && d.text[d.at] == '-' {
		d.at++
	}
	if d.at < len(d.text) && d.text[d.at] == '0' {
		d.at++
	} else {
		d.digits()
	}
}

func (d *decoder) number() {
	d.integer()
	if d.at < len(d.text) && d.text[d.at] == '.' {
		d.at++
		d.digits()
	}
	if d.at < len(d.text) && d.text[d.at]|0x20 == 'e' {
		d.at++
		if d.at < len(d.text) && (d.text[d.at] == '+' || d.text[d.at] == '-') {
			d.at++
		}
		d.digits()
	}
}

// skip passes over any value.
func (d *decoder) skip(depth int) {
	switch char := d.next(); char {
	case '"':
		d.string()
	case 't':
		d.literal("true")
	case 'f':
		d.literal("false")
	case 'n':
		d.literal("null")
	case '{', '[':
		if depth == 0 {
			d.failed = true
			return
		}
		closing := char + 2
		if !d.opens(char, closing) {
			return
		}
		for more := true; more; more = d.goesOn(closing) {
			if char == '{' {
				d.string()
				d.expect(':')
			}
			d.skip(depth - 1)
		}
	default:
		d.number()
	}
}

// What ends a run of characters that stand for themselves in a string.
var special = func() (of [256]bool) {
	for char := range ' ' {
		of[char] = true
	}
	of['"'], of['\\'] = true, true
	return of
}()

// string is the text of a string; whoever has it can't change it.
func (d *decoder) string() string {
	if d.next() != '"' {
		d.failed = true
		return ""
	}
	began, text := d.at+1, d.text
	for at := began; at < len(text); at++ {
		if char := text[at]; special[char] {
			switch char {
			case '"':
				d.at = at + 1
				return text[began:at]
			case '\\':
				return d.escaped(began, at)
			}
			break
		}
	}
	d.failed = true
	return ""
}

// escaped is the text of a string that begins at began, with its first escape.
func (d *decoder) escaped(began, at int) string {
	made := append(make([]byte, 0, at-began+32), d.text[began:at]...)
	for at < len(d.text) {
		char := d.text[at]
		at++
		switch {
		case char == '"':
			d.at = at
			return string(made)
		case char < ' ':
			d.failed = true
			return ""
		case char != '\\':
			made = append(made, char)
			continue
		}
		if at == len(d.text) {
			break
		}
		char = d.text[at]
		at++
		switch char {
		case '"', '\\', '/':
			made = append(made, char)
		case 'n':
			made = append(made, '\n')
		case 'r':
			made = append(made, '\r')
		case 't':
			made = append(made, '\t')
		case 'b':
			made = append(made, '\b')
		case 'f':
			made = append(made, '\f')
		case 'u':
			point := d.unit(at)
			at += 4
			if utf16.IsSurrogate(point) && strings.HasPrefix(d.text[min(at, len(d.text)):], `\u`) {
				point = utf16.DecodeRune(point, d.unit(at+2))
				at += 6
			}
			// The bridge replaces NUL and half of a pair, which is not rebuilt here.
			if point <= 0 || point == utf8.RuneError || utf16.IsSurrogate(point) {
				d.failed = true
				return ""
			}
			made = utf8.AppendRune(made, point)
		default:
			d.failed = true
			return ""
		}
	}
	d.failed = true
	return ""
}

// unit is the number of the four hexadecimal digits that begin there, -1 where they do not.
func (d *decoder) unit(at int) rune {
	if at+4 > len(d.text) {
		return -1
	}
	value, err := strconv.ParseUint(d.text[at:at+4], 16, 16)
	if err != nil {
		return -1
	}
	return rune(value)
}
