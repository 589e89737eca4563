package emulate

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKnownBad(t *testing.T) {
	assert.NotEmpty(t, warning("arm64", "5.2.0", "5.10.0"))
	assert.NotEmpty(t, warning("arm64", "4.2", ""))
	for _, v := range []string{"6.0.0", "7.2.22", "10.0.3", "", "x"} {
		assert.Empty(t, warning("arm64", v, "6.1.0-18-amd64"), v)
	}
	assert.Empty(t, warning("riscv64", "5.2.0", "6.8"))
	for _, kernel := range []string{"6.9.0", "6.11.0-1012-azure", "6.18.44-x", "7.0-rc1"} {
		assert.NotEmpty(t, warning("riscv64", "7.0.0", kernel), kernel)
		assert.Empty(t, warning("arm64", "7.2.22", kernel), kernel)
		assert.Empty(t, warning("arm64", "10.0", kernel), kernel)
	}
}

func TestParseMode(t *testing.T) {
	m, err := ParseMode("auto")
	assert.NoError(t, err)
	assert.Equal(t, Auto, m)
	_, err = ParseMode("magic")
	assert.ErrorIs(t, err, ErrMode)
}
