package output_test

import (
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/output"
)

func ExampleParse() {
	for _, s := range []string{"type=oci,dest=out.tar", "type=image,name=r.example/app:1,push=true", "rootfs/", "-"} {
		o, err := output.Parse(s)
		fmt.Println(o.Type, o.Dest, o.Names, o.Push, err)
	}
	_, err := output.Parse("type=oci,dst=out.tar")
	fmt.Println(err)
	// Output:
	// oci out.tar [] false <nil>
	// image  [r.example/app:1] true <nil>
	// local rootfs/ [] false <nil>
	// tar - [] false <nil>
	// invalid output "type=oci,dst=out.tar": unknown attribute "dst": did you mean dest?
}
