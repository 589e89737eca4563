// Lets forkexec_linux.go declare functions of the runtime.
