package stage_test

import (
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/stage"
)

func ExampleTag() {
	p, err := platform.Parse("linux/arm/v7")
	if err != nil {
		panic(err)
	}
	fmt.Println(stage.Tag("4711", p))
	// Output: _stage.4711.linux-arm-v7 <nil>
}
