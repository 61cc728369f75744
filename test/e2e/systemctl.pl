#!/usr/bin/perl
# As much of systemctl(1) as docs/install.md uses, for hosts without systemd: reads the installed units and does what they say
# (ListenStream, SocketMode, ExecStart, Restart, directories, capabilities). One process, the keeper, stands for each service: it
# holds the service's socket, and starts the service again when it ends.
use strict;
use warnings;
use POSIX ();
use Socket;

my $units = '/etc/systemd/system';
my $run = '/run/systemd/system';
my %prctl = (x86_64 => 157, aarch64 => 167, riscv64 => 167);

sub fail { print STDERR "systemctl: $_[0]\n"; exit 1 }

sub unit {
  my ($name) = @_;
  $name .= '.service' unless $name =~ /\.(service|socket)$/;
  return undef if $name eq 'docker.service';
  open(my $file, '<', "$units/$name") or fail("Unit $name not found.");
  my %unit = (name => $name);
  while (<$file>) { push @{ $unit{$1} }, $2 if /^(\w+)=(.*)$/ }
  return \%unit;
}
sub value { my ($unit, $key, $default) = @_; return exists $unit->{$key} ? $unit->{$key}[0] : $default }
sub base { my ($name) = @_; $name =~ s/\.\w+$//; return $name }
sub keeper { open(my $file, '<', "$run/" . base($_[0]) . '.pid') or return undef; my $pid = <$file>; chomp $pid; return kill(0, $pid) ? $pid : undef }
sub state_of { open(my $file, '<', "$run/" . base($_[0]) . '.state') or return 'inactive'; my $text = <$file>; chomp $text; return $text }
sub until_state {
  my ($name, $wanted) = @_;
  for (1 .. 200) { return if state_of($name) eq $wanted; select(undef, undef, undef, 0.05) }
  fail("$name did not become $wanted.");
}

sub start_keeper {
  my ($name) = @_;
  my $base = base($name);
  return if defined keeper($name);
  unlink "$run/$base.state";
  my $pid = fork // fail("fork: $!");
  unless ($pid) {
    POSIX::setsid();
    open(STDIN, '<', '/dev/null');
    open(STDOUT, '>>', "$run/$base.log");
    open(STDERR, '>&', \*STDOUT);
    keep($base);
    POSIX::_exit(0);
  }
  until_state($name, 'listening');
}

sub keep {
  my ($base) = @_;
  my $service = unit("$base.service");
  my ($wanted, $child) = (0, 0);
  my $socket;
  if (-e "$units/$base.socket") {
    my $unit = unit("$base.socket");
    my $path = value($unit, 'ListenStream');
    system('mkdir', '-p', $path =~ s{/[^/]*$}{}r);
    unlink $path;
    socket($socket, AF_UNIX, SOCK_STREAM, 0) && bind($socket, pack_sockaddr_un($path)) or die "$path: $!\n";
    chmod oct(value($unit, 'SocketMode', '0666')), $path;
    listen($socket, 128) or die "$path: $!\n";
  }
  my $say = sub {
    open(my $file, '>', "$run/$base.state.new");
    print $file "$_[0]\n";
    close $file;
    rename "$run/$base.state.new", "$run/$base.state";
  };
  my $end = 0;
  $SIG{USR1} = sub { $wanted = 1 };
  $SIG{USR2} = sub { $wanted = 0; kill 'TERM', $child if $child };
  $SIG{TERM} = sub { $end = 1; $wanted = 0; kill 'TERM', $child if $child };
  open(my $file, '>', "$run/$base.pid");
  print $file "$$\n";
  close $file;
  $say->('listening');
  while (!$end || $child) {
    if ($child && waitpid($child, POSIX::WNOHANG()) == $child) {
      print "systemctl: $base ended with status $?\n";
      $child = 0;
      $say->('listening');
      select(undef, undef, undef, value($service, 'RestartSec', 0.1)) if $wanted;
    }
    if ($wanted && !$child) {
      $child = start($service, $socket);
      $say->('active');
    }
    select(undef, undef, undef, 0.05);
  }
  unlink value(unit("$base.socket"), 'ListenStream') if $socket && -e "$units/$base.socket";
  unlink "$run/$base.pid", "$run/$base.state";
}

sub start {
  my ($service, $socket) = @_;
  for (['StateDirectory', '/var/lib'], ['RuntimeDirectory', '/run']) {
    my ($key, $parent) = @$_;
    my $name = value($service, $key) // next;
    mkdir "$parent/$name";
    chmod oct(value($service, "${key}Mode", '0755')), "$parent/$name";
  }
  my @caps = map { s/^CAP_/+/r } split ' ', lc(value($service, 'CapabilityBoundingSet', '')) =~ s/cap_/CAP_/gr;
  my @command = ('setpriv', '--no-new-privs', '--bounding-set=' . join(',', '-all', @caps), split(' ', value($service, 'ExecStart')));
  my $pid = fork // die "fork: $!\n";
  return $pid if $pid;
  $SIG{$_} = 'DEFAULT' for 'TERM', 'USR1', 'USR2';
  chdir '/';
  if ($socket) {
    if (fileno($socket) == 3) { fcntl($socket, 2, 0) }
    else { POSIX::dup2(fileno($socket), 3) }
    @ENV{qw(LISTEN_FDS LISTEN_PID LISTEN_FDNAMES)} = (1, $$, 'weft.sock');
  }
  # As systemd gives it, and nothing of the caller's.
  $ENV{PATH} = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  delete @ENV{ grep { /^(WEFT|NODE|DOCKER|HOME)/ } keys %ENV };
  exec { $command[0] } @command or POSIX::_exit(127);
}

mkdir $run, 0755;
my ($verb, @words) = @ARGV;
my $now = grep { $_ eq '--now' } @words;
for my $name (grep { !/^-/ } @words) {
  exit 4 if $verb eq 'is-active' && !-e "$units/$name";
  my $unit = unit($name) // next;    # dockerd is the lab's, and was started with what the installation sets
  $name = $unit->{name};
  fail("$name has no installation config.") if $verb =~ /able$/ && !exists $unit->{WantedBy};
  if ($verb eq 'start' || ($verb eq 'enable' && $now)) {
    start_keeper($name);
    next if $name =~ /\.socket$/;
    kill 'USR1', keeper($name);
    until_state($name, 'active');
  }
  elsif ($verb eq 'restart') {
    kill 'USR2', keeper($name);
    until_state($name, 'listening');
    kill 'USR1', keeper($name);
    until_state($name, 'active');
  }
  elsif ($verb eq 'stop' || ($verb eq 'disable' && $now)) {
    my $pid = keeper($name) // next;
    my $whole = $name =~ /\.socket$/ || !-e "$units/" . base($name) . '.socket';
    kill $whole ? 'TERM' : 'USR2', $pid;
    until_state($name, $whole ? 'inactive' : 'listening');
  }
  elsif ($verb eq 'is-active') { exit 3 if state_of($name) ne ($name =~ /\.socket$/ ? 'listening' : 'active') }
  elsif ($verb ne 'enable' && $verb ne 'disable' && $verb ne 'reload') { fail("knows no $verb.") }
}
