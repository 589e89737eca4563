//go:build arm || ppc64le || s390x || riscv64

package main

func str(s []uint8) string {
	b := make([]byte, 0, len(s))
	for _, c := range s {
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	return string(b)
}
