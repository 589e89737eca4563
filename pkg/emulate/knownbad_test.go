package emulate

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKnownBad(t *testing.T) {
	assert.NotEmpty(t, warning("arm64", "5.2.0"))
	assert.NotEmpty(t, warning("arm64", "4.2"))
	for _, v := range []string{"6.0.0", "7.2.22", "10.0.3", "", "x"} {
		assert.Empty(t, warning("arm64", v), v)
	}
	assert.Empty(t, warning("riscv64", "5.2.0"))
}

func TestParseMode(t *testing.T) {
	m, err := ParseMode("auto")
	assert.NoError(t, err)
	assert.Equal(t, Auto, m)
	_, err = ParseMode("magic")
	assert.ErrorIs(t, err, ErrMode)
}
