// Package yamlfile decodes YAML files that people write into structs. It is a fence around the library: where that
// panics on what it cannot understand (goccy/go-yaml 1.19 on an alias or tag without a value), there is an error.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
)

// ErrSyntax is the kind of a file that is no YAML, or not of the form that was wanted.
var ErrSyntax = errors.New("invalid YAML")

// Options tunes Decode.
type Options struct {
	Strict bool // unknown fields are errors
	Quote  bool // errors show the lines in question: not of files with passwords
}

// Decode decodes the first document of raw into v. io.EOF says that there is no document; every other error is an ErrSyntax
// with the place in the file.
func Decode(raw []byte, v any, o Options) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: it cannot be understood", ErrSyntax) // what was recovered is of the library, and may quote
		}
	}()
	var options []yaml.DecodeOption
	if o.Strict {
		options = append(options, yaml.DisallowUnknownField())
	}
	err = yaml.NewDecoder(bytes.NewReader(raw), options...).Decode(v)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("%w: %s", ErrSyntax, yaml.FormatError(err, false, o.Quote))
}
