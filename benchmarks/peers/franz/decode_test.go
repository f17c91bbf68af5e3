package main

import (
	"strings"
	"testing"
)

func TestWhatIsNoReportOfTheDocumentationIsRefused(t *testing.T) {
	deep := `[{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}]`
	for _, body := range []string{
		``, `[`, `[{`, `[{}`, `{}`, `[{}]]`, `[{},]`, `[{"a":1,}]`, `["a"]`, `[{"a"}]`, `[{"a":}]`, `[{a:1}]`, `[{"a":01}]`, `[{"a":1.}]`,
		`[{"a":+1}]`, `[{"a":1e}]`, `[{"a":tru}]`, `[{"a":[1 2]}]`, `[{"a":{"b"}}]`, `[{"To":{}}]`, `[{"To":1.5}]`, `[{"To":true}]`,
		`[{"Timestamp":"1"}]`, `[{"Timestamp":1.5}]`, "[{\"To\":\"a\nb\"}]", `[{"To":"a]`, `[{"To":"\`, `[{"To":"\x"}]`, `[{"To":"\u12"}]`,
		`[{"To":"\u0000"}]`, `[{"To":"\ud800"}]`, `[{"To":"\ud800\u0041"}]`, `[{"To":"\udc00"}]`, "[{\"To\":\"\xff\"}]", deep,
	} {
		if reports, err := decode([]byte(body)); err == nil {
			t.Errorf("%s: %+v", body, reports)
		}
	}
}

func TestNoBodyIsReadBeyondItsEnd(t *testing.T) {
	body := `[{"MessageId":"a\u00e9\ud83d\ude00\n","Timestamp":1691043638000,"x":{"y":[-1.5e+3,true,false,null,"z"]},"To":null}]`
	for size := range len(body) {
		if _, err := decode([]byte(body[:size])); err == nil {
			t.Errorf("%d bytes", size)
		}
	}
	reports, err := decode([]byte(body))
	if err != nil || len(reports) != 1 || reports[0].MessageID != "aé😀\n" || *reports[0].Timestamp != 1691043638000 {
		t.Fatalf("%+v %v", reports, err)
	}
	if extras := string(reports[0].extras); extras != `{"x":{"y":[-1.5e+3,true,false,null,"z"]}` {
		t.Error(extras)
	}
}
