// A Go program for WASI 0.1: says who it is, its arguments and environment. `exit N` ends so,
// `hold` stays.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	fmt.Println("hello from hello-go")
	for index, arg := range os.Args {
		fmt.Println("arg", index, arg)
	}
	for _, entry := range os.Environ() {
		fmt.Println("env", entry)
	}
	if len(os.Args) == 3 && os.Args[1] == "exit" {
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			code = 1
		}
		os.Exit(code)
	}
	for len(os.Args) == 2 && os.Args[1] == "hold" {
		time.Sleep(time.Hour)
	}
}
