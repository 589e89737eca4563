package platform_test

import (
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

func ExampleParse() {
	for _, s := range []string{"linux/x86_64", "linux/arm64/v8", "armhf"} {
		p, err := platform.Parse(s)
		fmt.Println(p, err)
	}
	_, err := platform.Parse("linux/amd46")
	fmt.Println(err)
	// Output:
	// linux/amd64 <nil>
	// linux/arm64 <nil>
	// linux/arm/v7 <nil>
	// invalid platform "linux/amd46": unknown architecture "amd46": did you mean "amd64"?
}

func ExampleSelect() {
	have, _ := platform.ParseList("linux/amd64,linux/arm/v6,linux/arm/v7")
	client, _ := platform.Parse("linux/arm64")
	i, ok := platform.Select(client, have)
	fmt.Println(have[i], ok)
	// Output: linux/arm/v7 true
}
