// A program of real size: two language engines behind one command, as a policy or rules service
// has them. `big js CODE`, `big jq FILTER JSON`; without arguments it runs one of
// each and says who it is, with `hold` it stays after that.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/dop251/goja"
	"github.com/itchyny/gojq"
)

func main() {
	answer, err := run(os.Args[1:])
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(answer)
	for len(os.Args) == 2 && os.Args[1] == "hold" {
		time.Sleep(time.Hour)
	}
}

func run(words []string) (string, error) {
	switch {
	case len(words) == 0, len(words) == 1 && words[0] == "hold":
		return all()
	case len(words) == 2 && words[0] == "js":
		return script(words[1])
	case len(words) == 3 && words[0] == "jq":
		return filter(words[1], words[2])
	}
	return "", fmt.Errorf("unknown command %q", words)
}

func all() (string, error) {
	js, err := script("[1, 2, 3].map(n => n * n).reduce((a, b) => a + b)")
	if err != nil {
		return "", err
	}
	jq, err := filter(".items | length", `{"items": [1, 2, 3]}`)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("hello from big\njs %s\njq %s", js, jq), nil
}

func script(code string) (string, error) {
	value, err := goja.New().RunString(code)
	if err != nil {
		return "", err
	}
	return value.String(), nil
}

func filter(text, input string) (string, error) {
	query, err := gojq.Parse(text)
	if err != nil {
		return "", err
	}
	var document any
	if err := json.Unmarshal([]byte(input), &document); err != nil {
		return "", err
	}
	value, found := query.Run(document).Next()
	if !found {
		return "", fmt.Errorf("jq %q has no answer", text)
	}
	if err, failed := value.(error); failed {
		return "", err
	}
	bytes, err := json.Marshal(value)
	return string(bytes), err
}
