//go:build 386 || amd64 || arm64 || mips || mipsle || mips64 || mips64le || loong64

package main

func str(s []int8) string {
	b := make([]byte, 0, len(s))
	for _, c := range s {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}
