# The headers as Doxygen reads them: comments before a declaration describe it, and backslashes and tags in comments are text.
s:^( *)//( |$):\1///\2:
/^ *(\*|\/\/)/ {
  s:\\([a-z]):\\\\\1:g
  s:<(/?[a-z]+)>:\\<\1\\>:g
}
