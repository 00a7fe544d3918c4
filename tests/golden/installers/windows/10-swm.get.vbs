' cscript get.vbs URL: ends with 0 where the server answered with 200.
Option Explicit
Dim name, http
For Each name In Array("WinHttp.WinHttpRequest.5.1", "MSXML2.ServerXMLHTTP.6.0", "MSXML2.XMLHTTP.6.0", "Microsoft.XMLHTTP")
    If Asked(name) Then WScript.Quit 0
Next
WScript.Quit 1

Function Asked(name)
    Asked = False
    On Error Resume Next
    Set http = CreateObject(name)
    If Err.Number <> 0 Then Exit Function
    http.Open "GET", WScript.Arguments(0), False
    http.Send
    If Err.Number = 0 Then Asked = (http.Status = 200)
End Function
