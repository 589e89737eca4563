package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/manifestctl/manifestctl/pkg/build"
)

func TestMain(m *testing.M) {
	build.AgentMain() // steps run by re-executing this binary
	testscript.Main(m, map[string]func(){"manifestctl": main})
}
