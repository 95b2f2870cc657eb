# For those whose fingers type make: it only calls ./dev.
.PHONY: all up test
all:
	./dev build
up:
	./dev up
test:
	./dev test
