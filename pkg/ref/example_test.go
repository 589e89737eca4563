package ref_test

import (
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

func ExampleParse() {
	for _, s := range []string{"debian", "localhost:5000/app:1.0", "oci:out:v1", "store:hello"} {
		r, err := ref.Parse(s)
		fmt.Println(r.Kind, r, err)
	}
	// Output:
	// docker docker.io/library/debian:latest <nil>
	// docker localhost:5000/app:1.0 <nil>
	// oci oci:out:v1 <nil>
	// store store:hello:latest <nil>
}
