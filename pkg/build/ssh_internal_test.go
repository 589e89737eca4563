package build

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestAgentOfKeys(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))

	a, err := newAgents(map[string][]string{"k": {file}})
	require.NoError(t, err)
	socket, ok := a.socket("k")
	require.True(t, ok)
	_, ok = a.socket("default")
	assert.False(t, ok)

	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	client := agent.NewClient(c)
	keys, err := client.List()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	want, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	sig, err := client.Sign(keys[0], []byte("data"))
	require.NoError(t, err)
	require.NoError(t, want.Verify([]byte("data"), sig))
	require.Error(t, client.RemoveAll(), "a step cannot take the keys away")
	require.NoError(t, c.Close())

	// A socket is handed on as it is, and not ours to remove.
	b, err := newAgents(map[string][]string{"default": {socket}})
	require.NoError(t, err)
	got, ok := b.socket("")
	assert.True(t, ok)
	assert.Equal(t, socket, got)
	require.NoError(t, b.close())
	require.NoError(t, a.close())
	assert.NoFileExists(t, socket)
}

func TestAgentOfNothing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no key"), 0o600))
	for _, path := range []string{"missing", "text"} {
		_, err := newAgents(map[string][]string{"k": {filepath.Join(dir, path)}})
		require.ErrorIs(t, err, ErrSSH)
	}
}
