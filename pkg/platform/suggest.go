package platform

import (
	"slices"
	"strings"
)

// nearest returns the name that is at most two slips away from word and less than
// half of it, or "".
func nearest(word string, names map[string]bool) string {
	word = strings.ToLower(word)
	if len(word) > 32 {
		return ""
	}
	best, distance := "", min(3, len(word)/2+1)
	for _, name := range sorted(names) {
		if d := slips(word, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

func sorted(names map[string]bool) []string {
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// slips counts the insertions, deletions, replacements and swaps of neighbours
// between a and b (the optimal string alignment distance).
func slips(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
