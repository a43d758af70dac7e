module sampan.dev/guests/hello-go

go 1.26
