package jsontree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    string // the compact form; "" means in
		wantErr error
	}{
		"scalars keep their spelling": {in: `[1.0,1e3,-0,12345678901234567890,"\u0041\/","é",true,false,null]`},
		"order of members":            {in: `{"z":1,"a":{"y":2,"b":[]},"m":{}}`},
		"white space goes":            {in: " {\r\n\t\"a\" : [ 1 , 2 ] , \"b\" : { } }\n", want: `{"a":[1,2],"b":{}}`},
		"brackets inside of strings":  {in: `{"a":"}]\",{","b":"\\"}`},
		"a lone scalar":               {in: `7`},
		"keys that differ in case":    {in: `{"a":1,"A":2}`},

		"B10 repeated key":            {in: `{"digest":1,"digest":2}`, wantErr: ErrInvalid},
		"B10 repeated key, escaped":   {in: `{"digest":1,"d\u0069gest":2}`, wantErr: ErrInvalid},
		"B10 repeated key, deep":      {in: `[{"a":{"b":[{"c":1,"c":1}]}}]`, wantErr: ErrInvalid},
		"B10 repeated key, many keys": {in: manyKeys(40, "k7"), wantErr: ErrInvalid},
		"B10 second document":         {in: `{} {}`, wantErr: ErrInvalid},
		"B10 text behind":             {in: `{}x`, wantErr: ErrInvalid},
		"B10 byte order mark":         {in: "\xef\xbb\xbf{}", wantErr: ErrInvalid},
		"B10 invalid UTF-8":           {in: "{\"a\":\"\xff\"}", wantErr: ErrInvalid},
		"B10 too deep":                {in: strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), wantErr: ErrInvalid},
		"B10 just too deep":           {in: strings.Repeat("[", MaxDepth+2) + strings.Repeat("]", MaxDepth+2), wantErr: ErrInvalid},
		"deep enough":                 {in: strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)},
		"too many values":             {in: "[" + strings.Repeat("0,", MaxValues) + "0]", wantErr: ErrInvalid},
		"empty":                       {in: ``, wantErr: ErrInvalid},
		"cut":                         {in: `{"a":`, wantErr: ErrInvalid},
		"trailing comma":              {in: `[1,]`, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := Parse([]byte(tc.in))
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				return
			}
			if tc.want == "" {
				tc.want = tc.in
			}
			assert.Equal(t, tc.want, string(n.Bytes()))
		})
	}
}

// manyKeys is an object of n keys and one repeated.
func manyKeys(n int, repeated string) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	fmt.Fprintf(&b, `%q:0}`, repeated)
	return b.String()
}

func TestEdit(t *testing.T) {
	n, err := Parse([]byte(`{"b":1,"a":"<&>","c":null,"list":[1]}`))
	require.NoError(t, err)

	n.Set("b", NewString("two"))
	n.Set("new", NewObject())
	n.Delete("c")
	n.Delete("absent")
	n.Get("list").Append(NewStrings([]string{"x<y", "\u2028"}))
	n.Get("new").Set("flag", NewBool(true))
	n.Get("new").Set("none", nil)

	assert.Equal(t, `{"b":"two","a":"<&>","list":[1,["x<y","\u2028"]],"new":{"flag":true,"none":null}}`, string(n.Bytes()))
	assert.Equal(t, []string{"b", "a", "list", "new"}, n.Keys())
	assert.True(t, n.Has("a"))
	assert.False(t, n.Has("none"), "a nil value is null, and not there")

	text, ok := n.Get("a").Text()
	assert.True(t, ok)
	assert.Equal(t, "<&>", text)
	_, ok = n.Get("list").Text()
	assert.False(t, ok)
	assert.Nil(t, n.Get("a").Get("x"), "no member of a string")
	assert.Nil(t, n.Get("a").Items())
	assert.Nil(t, n.Get("a").Keys())
}

func TestNilNode(t *testing.T) {
	var n *Node
	assert.Equal(t, Null, n.Kind())
	assert.Nil(t, n.Get("x"))
	assert.Equal(t, "null", string(n.Bytes()))
	assert.Equal(t, "null", n.Kind().String())
}

func TestDecode(t *testing.T) {
	type base struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	type inner struct {
		Digest string            `json:"digest"`
		Time   *time.Time        `json:"time,omitempty"`
		Map    map[string]string `json:"map"`
	}
	type doc struct {
		base
		List  []inner          `json:"list"`
		Named map[string]inner `json:"named"`
		Plain string
	}
	for name, tc := range map[string]struct {
		in      string
		wantErr error
	}{
		"all":                      {in: `{"schemaVersion":2,"list":[{"digest":"d","time":"2024-01-01T00:00:00Z"}],"Plain":"p"}`},
		"unknown fields":           {in: `{"x":{"Digest":1},"list":[{"y":[]}]}`},
		"keys of maps are free":    {in: `{"named":{"A":{},"a":{}},"list":[{"map":{"Digest":"1","digest":"2"}}]}`},
		"null list":                {in: `{"list":null}`},
		"B10 case variant":         {in: `{"List":[]}`, wantErr: ErrInvalid},
		"B10 of an embedded":       {in: `{"SchemaVersion":2}`, wantErr: ErrInvalid},
		"B10 in a list":            {in: `{"list":[{"DIGEST":"d"}]}`, wantErr: ErrInvalid},
		"B10 in a map":             {in: `{"named":{"a":{"Digest":"d"}}}`, wantErr: ErrInvalid},
		"B10 beside the right one": {in: `{"list":[],"LIST":[]}`, wantErr: ErrInvalid},
		"a field without a tag":    {in: `{"plain":"p"}`, wantErr: ErrInvalid},
		"wrong type":               {in: `{"list":{}}`, wantErr: ErrInvalid},
		"null":                     {in: `null`, wantErr: ErrInvalid},
		"not an integer":           {in: `{"schemaVersion":2.5}`, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			var d doc
			_, err := Decode([]byte(tc.in), &d)
			require.ErrorIs(t, err, tc.wantErr)
		})
	}
}

func TestMarshal(t *testing.T) {
	b, err := Marshal(map[string]string{"b": "<>&", "a": "x"})
	require.NoError(t, err)
	assert.Equal(t, `{"a":"x","b":"<>&"}`, string(b))
	_, err = Marshal(func() {})
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"schemaVersion":2,"manifests":[{"digest":"sha256:00","size":1,"platform":{"os":"linux"}}]}`,
		`{"a":1,"a":2}`, `[1,[2,[3]],"\ud800","\\\"",{"":""}]`, ` { "x" : [ true , null ] } `, `-1.5e+10`, "\xef\xbb\xbf1", `{"a":{}}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := Parse(in)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.True(t, json.Valid(in), "what is taken is JSON")
		out := n.Bytes()
		var compact bytes.Buffer
		require.NoError(t, json.Compact(&compact, in))
		require.Equal(t, compact.String(), string(out), "nothing but white space goes")
		again, err := Parse(out)
		require.NoError(t, err)
		require.Equal(t, string(out), string(again.Bytes()))
	})
}
