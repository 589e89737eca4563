// Package differential builds Dockerfiles with manifestctl and with BuildKit and compares the images: config, layers
// byte for byte (diffIDs), and where failures are. testdata/*.txtar holds the Dockerfiles by topic; what BuildKit made
// of them is recorded in testdata/confirm, so that the tests need no daemon; `make differential` asks the real one.
//
// # A case
//
// A topic is a txtar archive. The first element of a file's name is the name of a case; CASE/Dockerfile is built with
// the other files as its context, all with one modification time. CASE/@ prepares and says how to build, a line each:
//
//	flags --build-arg A=b              flags of `manifestctl build`, words separated by spaces
//	chmod 0640 PATH
//	mtime SECONDS PATH
//	dir PATH                           an empty directory
//	symlink TARGET PATH
//	hardlink OLD NEW
//	fifo PATH
//	tar gz|bz2|xz|zst|none PATH FROM   an archive of a directory of the context, which goes
//	truncate SIZE PATH
//	append PATH WORD                   a word behind what a file holds
//	sshkey PATH                        a new private key
//	proxy                              HTTP_PROXY and others are set for both
//	repeat                             built twice, the second time from the cache
package differential
