//go:build linux

package sandbox

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestUnused(t *testing.T) {
	const clean = "sockets: used 3\nTCP: inuse 0 orphan 0 tw 0 alloc 9 mem 2\nUDP: inuse 0 mem 1\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
	assert.True(t, unused(clean))
	for name, text := range map[string]string{
		"a closed connection": "sockets: used 3\nTCP: inuse 0 orphan 0 tw 1 alloc 9 mem 2\n",
		"an orphan":           "sockets: used 3\nTCP: inuse 0 orphan 1 tw 0 alloc 9 mem 2\n",
		"a socket":            "sockets: used 3\nUDP: inuse 12 mem 1\n",
		"nothing known":       "",
	} {
		assert.False(t, unused(text), name)
	}
}
