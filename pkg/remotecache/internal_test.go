package remotecache

import "github.com/opencontainers/go-digest"

// DecodeConfig gives every digest in a config, for fuzzing.
func DecodeConfig(raw []byte) ([]digest.Digest, error) {
	c, err := decodeConfig(raw)
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for _, r := range c.Records {
		out = append(append(out, r.Key), r.all()...)
	}
	for _, l := range c.Layers {
		out = append(out, l.DiffID)
		if l.Blob != nil {
			out = append(out, l.Blob.Digest)
		}
	}
	return out, nil
}
